"""Append-only numbered steps from an empty file to the tables of `store/tables.py`."""
