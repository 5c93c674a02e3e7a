"""Dead letters: read, selected, previewed, replayed, discarded."""
