"""The conductor: takes a job through all stages. The only code that knows them all."""
