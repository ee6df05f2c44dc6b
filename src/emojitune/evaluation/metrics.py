"""Pure scorers of one reply. White space around a reply is not held against it."""

from collections.abc import Collection, Sequence

from emojitune.labels import is_label


def in_style(text: str) -> bool:
    """One bare label in parentheses, whatever the vocabulary."""
    return is_label(text.strip())


def in_vocabulary(text: str, vocabulary: Collection[str]) -> bool:
    """One of the replies that were learned."""
    return text.strip() in vocabulary


def top_1(text: str, expected: str) -> bool:
    """The expected reply, word for word."""
    return text.strip() == expected.strip()


def top_k(alternatives: Sequence[str], expected: str, k: int = 5) -> bool:
    """The expected reply is among the first `k` alternatives, best first."""
    return any(top_1(text, expected) for text in alternatives[:k])
