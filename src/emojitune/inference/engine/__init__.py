"""The engine: one forward pass for many requests over a shared KV cache. Token ids only."""
