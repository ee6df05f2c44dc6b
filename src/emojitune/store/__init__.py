"""Everything that is stored: files, jobs with events and checkpoints, models. The only SQL."""
