"""How good it is: scorers, the run over examples, and what is shown of it."""
