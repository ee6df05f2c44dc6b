"""`/v1/fine_tuning`: jobs, checkpoint permissions, graders."""
