"""What is read of the journal beside the paid path: statements, and the tables they stand in."""
