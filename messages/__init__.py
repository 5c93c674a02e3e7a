"""What crosses the wire: typed, frozen, without I/O."""
