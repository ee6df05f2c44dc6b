"""Training: examples and numbers in, events and checkpoints out."""
