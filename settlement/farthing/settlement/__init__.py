"""What is owed: the engine decides, the journal makes durable, the reports read.

The engine is pure: no I/O, no clock, no randomness. Imports the protocol and identity, never the catalog.
"""
