"""The `data` commands: check, convert, split, show and count the examples of a file."""
