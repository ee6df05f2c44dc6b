"""Text similarity from 0 to 1, by the measures of translation and summaries.

    fuzzy_match   2 x longest common subsequence / both lengths, by characters
    bleu          geometric mean of the precision of 1- to 4-grams, with the brevity penalty; orders
                  that the input is too short for are left out, an order without a match counts as
                  half a match
    gleu          matches of 1- to 4-grams, over the larger of the two numbers of n-grams
    meteor        harmonic mean of precision and recall (recall weighs 9 to 1), less a penalty for
                  scattered matches; words match when they or their English stems are equal (the
                  original also knows synonyms)
    rouge_1..5    F1 of the n-grams
    rouge_l       F1 of the longest common subsequence of words

Words are those of `rouge.py`; for bleu and gleu every other character except white space is a
token, too. Text without any word is compared as it stands.
"""

import math
import re
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import pairwise
from typing import Any

from emojitune.evaluation.rouge import (
    Pause,
    longest_common_subsequence,
    ngrams,
    rouge_l,
    rouge_n,
    words,
)

Measure = Callable[[str, str, Pause], float]

_MAX_ORDER = 4
_MAX_STEMMED = 100  # characters; a longer word is not English, and the stemmer is quadratic


def fuzzy_match(text: str, reference: str, pause: Pause) -> float:
    """Normalised indel similarity, which rapidfuzz calls `ratio`."""
    if not text and not reference:
        return 1.0
    common = longest_common_subsequence(text, reference, pause)
    return 2 * common / (len(text) + len(reference))


def bleu(text: str, reference: str, pause: Pause) -> float:
    """BLEU of one sentence."""
    candidate, expected = _tokens(text), _tokens(reference)
    if not candidate or not expected:
        return float(text == reference)
    logs = []
    for order in range(1, min(_MAX_ORDER, len(candidate)) + 1):
        pause()
        grams = ngrams(candidate, order)
        matches = (grams & ngrams(expected, order)).total()
        if order == 1 and not matches:
            return 0.0
        logs.append(math.log((matches or 0.5) / grams.total()))
    brevity = min(0.0, 1 - len(expected) / len(candidate))
    return math.exp(brevity + sum(logs) / len(logs))


def gleu(text: str, reference: str, pause: Pause) -> float:
    """Google's BLEU of one sentence."""
    candidate, expected = _tokens(text), _tokens(reference)
    if not candidate or not expected:
        return float(text == reference)
    matches = in_text = in_reference = 0
    for order in range(1, _MAX_ORDER + 1):
        pause()
        candidate_grams, expected_grams = ngrams(candidate, order), ngrams(expected, order)
        matches += (candidate_grams & expected_grams).total()
        in_text += candidate_grams.total()
        in_reference += expected_grams.total()
    return matches / max(in_text, in_reference)


def meteor(text: str, reference: str, pause: Pause) -> float:
    """METEOR by exact words and stems."""
    candidate, expected = words(text), words(reference)
    if not candidate or not expected:
        return float(text == reference)
    alignment = _align(candidate, expected, pause)
    if not alignment:
        return 0.0
    precision, recall = len(alignment) / len(candidate), len(alignment) / len(expected)
    mean = 10 * precision * recall / (recall + 9 * precision)
    targets = [alignment.get(index) for index in range(len(candidate) + 1)]
    chunks = sum(here is not None and after != here + 1 for here, after in pairwise(targets))
    return mean * (1 - 0.5 * (chunks / len(alignment)) ** 3)


def _rouge_n(order: int, text: str, reference: str, pause: Pause) -> float:
    pause()
    return rouge_n(order, text, reference)


MEASURES: dict[str, Measure] = {
    "fuzzy_match": fuzzy_match,
    "bleu": bleu,
    "gleu": gleu,
    "meteor": meteor,
    **{f"rouge_{order}": partial(_rouge_n, order) for order in range(1, 6)},
    "rouge_l": rouge_l,
}


def _tokens(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text.lower())


def _align(candidate: Sequence[str], expected: Sequence[str], pause: Pause) -> dict[int, int]:
    """Index in the text -> index in the reference: equal words first, then equal stems."""
    pairs: dict[int, int] = {}
    for form in (str, _stem):
        free: dict[str, list[int]] = {}
        taken = set(pairs.values())
        for index in range(len(expected) - 1, -1, -1):
            pause()
            if index not in taken:
                free.setdefault(form(expected[index]), []).append(index)
        for index, word in enumerate(candidate):
            pause()
            if index not in pairs and (targets := free.get(form(word))):
                pairs[index] = targets.pop()
    return pairs


def _stem(word: str) -> str:
    if len(word) > _MAX_STEMMED:
        return word
    stem: str = _stemmer().stemWord(word)
    return stem


@cache
def _stemmer() -> Any:
    import snowballstemmer

    return snowballstemmer.stemmer("english")
