"""What is learned from: examples, their checks, their numbers, their splits."""
