"""Training data: examples, their checks, statistics and splits. Knows no tokens, models or SQL."""
