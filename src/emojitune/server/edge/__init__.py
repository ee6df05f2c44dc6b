"""The edge: connections and HTTP, authentication, rate limits, the log."""
