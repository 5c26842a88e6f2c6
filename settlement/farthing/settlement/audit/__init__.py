"""The books read from outside: a database audited, and exported for other programs. Read-only."""
