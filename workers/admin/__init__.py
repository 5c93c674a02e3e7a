"""What operators see and do, for the command line and for the operations console alike."""
