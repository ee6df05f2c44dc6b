"""`/v1/chat/completions`: requests, replies, and those that are stored."""
