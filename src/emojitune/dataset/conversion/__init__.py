"""Conversion of other projects' formats into chat examples."""
