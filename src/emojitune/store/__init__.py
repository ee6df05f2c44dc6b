"""What is remembered: files, jobs with their events and checkpoints, models. The only SQL."""
