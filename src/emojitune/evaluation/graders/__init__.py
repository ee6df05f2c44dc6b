"""OpenAI's graders: string checks, text similarity, and formulas over their scores."""
