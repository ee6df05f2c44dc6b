"""`/v1/models`, and from a model's name to the model."""
