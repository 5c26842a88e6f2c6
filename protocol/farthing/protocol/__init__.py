"""The law: everything both sides of a trade can compute alone and must agree on.

Pure functions and values: no I/O, clock or randomness, and no other room is imported.
"""
