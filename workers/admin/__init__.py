"""Views and actions of operators, for the command line and for the operations console alike."""
