"""What is done to OpenStack: one verb-named function for each operation."""
