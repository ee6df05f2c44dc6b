"""Closed sets of labels, tokenized; the latest are kept, within a bound of bytes."""

import threading
from collections import OrderedDict
from dataclasses import dataclass

from emojitune.errors import ConversationError
from emojitune.inference.decoding.constraint import LabelTrie, State
from emojitune.inference.decoding.label_search import PASS_TOKENS
from emojitune.inference.faults import Field, RequestFault
from emojitune.models.renderer import Renderer

_MAX_BYTES = 32 * 2**20  # of the sets that are kept of one model

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Labels as a trie of tokens, and the state in which each of them ends."""

    trie: LabelTrie
    ends: dict[str, State]

    @staticmethod
    def tokenize(renderer: Renderer, labels: Labels, max_shared_tokens: int) -> "LabelSet":
        try:
            trie = LabelTrie([renderer.encode_text(label) for label in labels])
        except ConversationError as error:
            raise RequestFault(Field.LABELS, error.message, code="invalid_value") from error
        if trie.tokens_before_choices > max_shared_tokens:
            raise RequestFault(
                Field.LABELS,
                lambda name: (
                    f"Invalid '{name}': their common beginnings have "
                    f"{trie.tokens_before_choices} tokens, where {max_shared_tokens} fit into the "
                    "cache. Send fewer labels, or shorter ones."
                ),
                code="invalid_value",
            )
        return LabelSet(trie, dict(zip(labels, trie.end_states, strict=True)))

    @property
    def search_tokens(self) -> int:
        """The most tokens that a search holds in the cache: those after which labels part, and
        those of a pass."""
        trie = self.trie
        return trie.tokens_before_choices + min(trie.tokens, max(PASS_TOKENS, trie.longest))

    @property
    def bytes(self) -> int:
        """Memory, that of the labels' text included."""
        return self.trie.bytes + sum(map(len, self.ends)) + 200 * len(self.ends)


class LabelSets:
    """The sets of one model's requests; any number of threads may use it at once.

    Args:
        max_shared_tokens: Those of a set after which labels part; a search holds them in the cache,
            beside the prompt.
    """

    def __init__(self, renderer: Renderer, max_shared_tokens: int) -> None:
        self._renderer = renderer
        self._max_shared_tokens = max_shared_tokens
        self._sets: OrderedDict[Labels, LabelSet] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        with self._lock:
            return sum(labels.bytes for labels in self._sets.values())

    def get(self, labels: Labels) -> LabelSet:
        """The set of these labels, tokenized now unless it is kept."""
        with self._lock:
            found = self._sets.get(labels)
        found = found or LabelSet.tokenize(self._renderer, labels, self._max_shared_tokens)
        with self._lock:
            self._sets[labels] = found
            self._sets.move_to_end(labels)
            while (
                len(self._sets) > 1 and sum(one.bytes for one in self._sets.values()) > _MAX_BYTES
            ):
                self._sets.popitem(last=False)
        return found
