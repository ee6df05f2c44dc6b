"""The edge: authentication, rate limits, the access log, the listening socket."""
