"""Who is proven to speak: callers, proofs, the directory of keys, the platform's own keys.

Reads and verifies; changes nothing but the platform's key files. Imports the protocol only.
"""
