"""OpenAI's graders: string checks, text similarity, formulas over their scores."""
