"""Limits of grammars: what a schema costs is known before it is compiled.

llguidance bounds the work for one mask itself (`parser_limits`), but a compilation can be neither
bounded nor interrupted: one object of 10,000 optional properties takes it 13 seconds.
"""

import re
import threading
from collections import Counter
from collections.abc import Hashable, Mapping
from decimal import Decimal
from typing import Any

from emojitune.errors import EmojituneError

# In units of some 25 microseconds and 1.5 kB, as measured with schemas of 5,000 to 30,000 of them.
MAX_COST = 20_000  # of all compilations for one request, but for the last
MIN_COST = 40  # of any compilation
MAX_LATER_COST = 2_000  # of compilations while the reply is written: all replies wait for them
_CHARACTERS = 25  # of text that cost one unit
_OPTIONAL_PAIRS = 200  # of optional properties of one object that cost one unit

MAX_HELD_COST = 200_000  # of the grammars that are in use, half of them by one owner

# A grammar has a state for each remainder of a multiple: a hundred thousand of them take a second,
# and a schema is compiled several times.
_MULTIPLE = re.compile(r'(?<!\\)"multipleOf": (-?[\d.eE+-]+)')
MAX_REMAINDERS = 10_000  # of all schemas of a request


def parser_limits() -> Any:
    """llguidance's limits: 20 ms at most for a mask, and some 5 MB for the states of a lexer.

    Its own ones allow for five times as long, with Python's lock held, and for 70 MB.
    """
    import llguidance

    return llguidance.LLParserLimits(step_max_items=10_000, max_lexer_states=20_000)


def schema_cost(schema: Mapping[str, Any]) -> int:
    """The cost of compiling a JSON schema: of its values and texts, and the square of optional
    properties, which may come in any number after one another."""
    cost = 0
    values: list[Any] = [schema]
    while values:
        value = values.pop()
        cost += 1
        if isinstance(value, str):
            cost += len(value) // _CHARACTERS
        elif isinstance(value, list):
            values += value
        elif isinstance(value, dict):
            values += value.values()
            cost += sum(map(len, value)) // _CHARACTERS
            cost += _optional_properties(value) ** 2 // _OPTIONAL_PAIRS
    return cost


def _optional_properties(schema: Mapping[str, Any]) -> int:
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, dict):
        return 0
    names = (
        {name for name in required if isinstance(name, str)}
        if isinstance(required, list)
        else set()
    )
    return len(properties.keys() - names)


def remainders(rule: str) -> int:
    """The number of remainders of all multiples in a rule, without their decimal points."""
    return sum(map(_remainders_of, _MULTIPLE.findall(rule)))


def _remainders_of(multiple: str) -> int:
    _, digits, exponent = Decimal(multiple).normalize().as_tuple()
    zeros = "0" * min(max(0, int(exponent)), 9)  # more of them are too many anyway
    return int("".join(map(str, digits)) + zeros)


class BudgetError(Exception):
    """All that may be spent on the schemas of a request is spent."""


class Budget:
    """What the compilations for one request may cost together."""

    def __init__(self) -> None:
        self._left = MAX_COST

    def spend(self, cost: int) -> None:
        """Pay for a compilation in advance.

        Raises:
            BudgetError: It costs more than is left, and nothing is left from now on.
        """
        self._left -= max(MIN_COST, cost)
        if self._left < 0:
            self._left = 0
            raise BudgetError


class HeldCosts:
    """The cost of the grammars in use, which is a measure of their memory."""

    def __init__(self) -> None:
        self._held: Counter[Hashable] = Counter()
        self._lock = threading.Lock()

    def hold(self, owner: Hashable, cost: int) -> None:
        """Count a grammar.

        Raises:
            EmojituneError: Those in use take too much memory; `server_busy`.
        """
        with self._lock:
            held = self._held[owner] + cost, self._held.total() + cost
            if held[0] > MAX_HELD_COST // 2 or held[1] > MAX_HELD_COST:
                raise EmojituneError(
                    "Too many large schemas are in use at the same time. Please try again when "
                    "other requests with schemas have ended.",
                    code="server_busy",
                )
            self._held[owner] += cost

    def release(self, owner: Hashable, cost: int) -> None:
        """Count a grammar no more."""
        with self._lock:
            self._held[owner] -= cost
            if not self._held[owner]:
                del self._held[owner]
