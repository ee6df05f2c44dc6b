"""`/v1/batches`: routes, input and output files, and the runner."""
