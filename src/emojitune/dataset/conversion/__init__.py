"""Conversion of other formats into chat lines."""
