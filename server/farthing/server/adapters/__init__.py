"""What stands behind the server's ports."""
