"""How messages come, go and survive; the command line."""
