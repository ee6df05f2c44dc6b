"""How it learns: examples and numbers in, events and checkpoints out."""
