"""Decoding: sampling, constraints, label search, speculative drafts. Token ids and scores only."""
