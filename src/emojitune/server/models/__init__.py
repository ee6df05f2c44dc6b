"""`/v1/models`, and loading a model by its name."""
