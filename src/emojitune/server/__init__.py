"""The HTTP edge: OpenAI's API over the store, the jobs and the chat models."""
