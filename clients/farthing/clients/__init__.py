"""The other side of the doors: the SDK, the bridge, the demo and the `farthing` command.

Imports the protocol only, so that a client can be trusted, and installed, without the server.
"""
