"""`/v1/responses`: requests, items, replies, and those that are stored."""
