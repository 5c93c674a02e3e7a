"""The work of paid orders on OpenStack."""
