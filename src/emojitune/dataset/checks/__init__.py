"""Checks of what examples say: texts, labels, secrets, duplicates."""
