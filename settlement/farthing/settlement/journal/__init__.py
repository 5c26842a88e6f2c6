"""Makes durable what the engine decides: the writer, its stores, sealing, recovery, backup.

One writer, one storage transaction per batch, and nothing is told before it is durable.
Imports the protocol, identity and the engine's values.
"""
