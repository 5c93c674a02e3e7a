"""The work on OpenStack: one verb-named function for each operation."""
