"""Checks of usable examples: their texts, labels and duplicates. They yield issues."""
