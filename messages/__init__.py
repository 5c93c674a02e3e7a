"""The messages on the wire: models, typed and frozen, without I/O."""
