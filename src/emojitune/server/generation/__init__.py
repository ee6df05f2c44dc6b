"""Replies on their way from a chat model to a client, whole or streamed."""
