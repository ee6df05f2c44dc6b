"""How it replies: messages and parameters in, text out, freely or held to a set of labels."""
