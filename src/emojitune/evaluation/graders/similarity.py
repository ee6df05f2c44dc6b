"""How alike two texts are, from 0 to 1, by the measures of translation and summaries.

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

Words are runs of letters and digits, in lower case; for bleu and gleu every other character that is
no white space is a word too. Text without any word is compared as it stands.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from functools import cache, partial
from itertools import pairwise
from typing import Any

Measure = Callable[[str, str], float]

_LARGEST_GRAM = 4


def fuzzy_match(text: str, reference: str) -> float:
    if not text and not reference:
        return 1.0
    return 2 * _common_subsequence(text, reference) / (len(text) + len(reference))


def bleu(text: str, reference: str) -> float:
    found, wanted = _tokens(text), _tokens(reference)
    if not found or not wanted:
        return float(text == reference)
    logs = []
    for order in range(1, min(_LARGEST_GRAM, len(found)) + 1):
        grams = _grams(found, order)
        matches = (grams & _grams(wanted, order)).total()
        if order == 1 and not matches:
            return 0.0
        logs.append(math.log((matches or 0.5) / grams.total()))
    brevity = min(0.0, 1 - len(wanted) / len(found))
    return math.exp(brevity + sum(logs) / len(logs))


def gleu(text: str, reference: str) -> float:
    found, wanted = _tokens(text), _tokens(reference)
    if not found or not wanted:
        return float(text == reference)
    matches = in_text = in_reference = 0
    for order in range(1, _LARGEST_GRAM + 1):
        of_text, of_reference = _grams(found, order), _grams(wanted, order)
        matches += (of_text & of_reference).total()
        in_text += of_text.total()
        in_reference += of_reference.total()
    return matches / max(in_text, in_reference)


def meteor(text: str, reference: str) -> float:
    found, wanted = _words(text), _words(reference)
    if not found or not wanted:
        return float(text == reference)
    pairs = _alignment(found, wanted)
    if not pairs:
        return 0.0
    precision, recall = len(pairs) / len(found), len(pairs) / len(wanted)
    mean = 10 * precision * recall / (recall + 9 * precision)
    places = [pairs.get(place) for place in range(len(found) + 1)]
    chunks = sum(here is not None and after != here + 1 for here, after in pairwise(places))
    return mean * (1 - 0.5 * (chunks / len(pairs)) ** 3)


def rouge_n(order: int, text: str, reference: str) -> float:
    found, wanted = _words(text), _words(reference)
    if len(found) < order or len(wanted) < order:
        return float(text == reference)
    of_text, of_reference = _grams(found, order), _grams(wanted, order)
    return _f1((of_text & of_reference).total(), of_text.total(), of_reference.total())


def rouge_l(text: str, reference: str) -> float:
    found, wanted = _words(text), _words(reference)
    if not found or not wanted:
        return float(text == reference)
    return _f1(_common_subsequence(found, wanted), len(found), len(wanted))


MEASURES: dict[str, Measure] = {
    "fuzzy_match": fuzzy_match,
    "bleu": bleu,
    "gleu": gleu,
    "meteor": meteor,
    **{f"rouge_{order}": partial(rouge_n, order) for order in range(1, 6)},
    "rouge_l": rouge_l,
}


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _tokens(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text.lower())


def _grams(words: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[start:] for start in range(order)), strict=False))


def _f1(matches: int, in_text: int, in_reference: int) -> float:
    return 2 * matches / (in_text + in_reference)


def _alignment(found: Sequence[str], wanted: Sequence[str]) -> dict[int, int]:
    """Place in the text -> place in the reference: equal words first, then equal stems."""
    pairs: dict[int, int] = {}
    for form in (str, _stem):
        free: dict[str, list[int]] = {}
        taken = set(pairs.values())
        for place in range(len(wanted) - 1, -1, -1):
            if place not in taken:
                free.setdefault(form(wanted[place]), []).append(place)
        for place, word in enumerate(found):
            if place not in pairs and (places := free.get(form(word))):
                pairs[place] = places.pop()
    return pairs


def _stem(word: str) -> str:
    stem: str = _stemmer().stemWord(word)
    return stem


@cache
def _stemmer() -> Any:
    import snowballstemmer

    return snowballstemmer.stemmer("english")


def _common_subsequence(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """Length of the longest one: a whole row of the table at once, as the bits of an integer."""
    places: dict[Hashable, int] = {}
    for place, item in enumerate(one):
        places[item] = places.get(item, 0) | 1 << place
    whole = (1 << len(one)) - 1
    row = whole
    for item in other:
        matches = row & places.get(item, 0)
        row = ((row + matches) | (row - matches)) & whole
    return len(one) - row.bit_count()
