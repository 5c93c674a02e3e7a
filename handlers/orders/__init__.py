"""What paid orders do to OpenStack."""
