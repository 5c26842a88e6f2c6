"""The operations: every use case, one file per noun, each bound here to its declaration."""
