"""What every request passes: keys, rate limits, the access log, the listening socket."""
