"""A copy of everything that a fine-tuning account holds, in a folder that a person can read."""
