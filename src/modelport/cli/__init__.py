"""The verbs of the command line: the only rooms that print or exit."""
