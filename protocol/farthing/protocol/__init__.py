"""The law: everything both sides of a trade can compute alone and must agree on.

Pure functions and values. Nothing here does I/O, reads a clock, draws a random number or imports another room.
"""
