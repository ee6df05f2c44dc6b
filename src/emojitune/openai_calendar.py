"""OpenAI's shutdown dates, a notice about them on any day, and its prices.

Dates are as OpenAI announced them, in UTC. Knows no clock: the current date is an argument.
"""

from datetime import date

COMPLETIONS_END = date(2026, 9, 28)  # babbage-002 and davinci-002
GPT_35_END = date(2026, 10, 23)
NEW_JOBS_END = date(2027, 1, 6)
GPT_4_END = date(2027, 1, 14)

TRAINING_DOLLARS_PER_MILLION = 8.0  # gpt-3.5-turbo's, the last one published

# For a million tokens of a fine-tuned model's prompts and replies, the last ones published; a
# longer name comes before its beginning.
CHAT_DOLLARS_PER_MILLION = {
    "gpt-3.5-turbo": (3.0, 6.0),
    "gpt-4o-mini": (0.3, 1.2),
    "gpt-4o": (3.75, 15.0),
    "gpt-4.1-nano": (0.2, 0.8),
    "gpt-4.1-mini": (0.8, 3.2),
    "gpt-4.1": (3.0, 12.0),
}
BATCH_SHARE = 0.5  # of the price, as a batch


def chat_prices(model: str) -> tuple[float, float] | None:
    """The dollars for a million tokens of prompts and of replies of a fine-tuned model; None if
    they are not known."""
    base = model.removeprefix("ft:").partition(":")[0]
    if base == model:  # not fine-tuned
        return None
    return next((p for name, p in CHAT_DOLLARS_PER_MILLION.items() if base.startswith(name)), None)


def training_dollars(tokens: int, epochs: int) -> float:
    """The price of a job at OpenAI over `tokens` in each epoch."""
    return tokens * epochs * TRAINING_DOLLARS_PER_MILLION / 1_000_000


def fine_tuning_notice(today: date) -> str:
    """A notice about a fine-tuning job created at OpenAI today, one sentence per line."""
    refused = "(HTTP 403, training_not_available)"
    if today < NEW_JOBS_END:
        jobs = (
            f"OpenAI takes no new fine-tuning jobs from {NEW_JOBS_END} on, and already refuses "
            f"organizations that have not used it lately {refused}."
        )
    else:
        jobs = f"OpenAI has taken no new fine-tuning jobs since {NEW_JOBS_END} {refused}."
    return "\n".join(
        (
            _shutdown("gpt-3.5-turbo and its fine-tunes", GPT_35_END, today),
            jobs,
            _shutdown(
                "gpt-4o and gpt-4.1, their mini models and their fine-tunes", GPT_4_END, today
            ),
        )
    )


def _shutdown(models: str, day: date, today: date) -> str:
    tense = "are shut down" if today < day else "were shut down"
    return f"{models} {tense} on {day}."
