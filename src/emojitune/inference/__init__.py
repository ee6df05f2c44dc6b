"""Inference: requests in, deltas of text out, free or constrained to a set of labels."""
