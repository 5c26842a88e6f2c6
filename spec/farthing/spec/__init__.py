"""The written protocol as data that ships: JSON Schemas, vectors and the requirements manifest.

Read by the server, the clients and the tests alike, so that no one of them can drift alone.
"""
