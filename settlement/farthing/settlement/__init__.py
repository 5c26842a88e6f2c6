"""What is owed: the engine decides, the journal makes durable.

The engine is pure. Imports the protocol and identity, never the catalog.
"""
