"""Replies on their way from a chat model to a client, complete or streamed."""
