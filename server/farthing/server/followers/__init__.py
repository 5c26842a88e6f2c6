"""What follows the journal: each keeps a cursor of its own, and nothing waits for it."""
