"""When a request that failed is sent again, and after how long.

Knows the SDK's exceptions, not what is asked for. The SDK's own retries end after two: a copy of
everything runs for an hour, and meets every limit of a provider.
"""

import math
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import TypeVar

import openai

from emojitune.errors import ProviderError

T = TypeVar("T")

READ_SECONDS = 120.0  # without a byte, after which a connection counts as lost
LONGEST_WAIT = 3600.0  # that a provider can ask for
_BACKOFF = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # where it does not say how long
_LIMITED_TRIES = 50  # of one request while the provider says that there are too many
_BROKEN_IN_A_ROW = 3  # objects that it cannot send, after which it counts as down
_PASSING = frozenset({408, 409, 429})  # and those from 500 on


class CutError(Exception):
    """The connection was lost in the middle of a body."""


class Patience:
    """Repeats requests, waiting as the provider says.

    Args:
        say: Called with a sentence before a wait that a person would notice.
        sleep: Waits for some seconds.
        clock: The time in unix seconds, to which a date in `retry-after` is compared.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        sleep: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        self._say = say
        self._sleep = sleep
        self._clock = clock
        self._broken = 0

    def request(self, send: Callable[[], T]) -> T:
        """The result of `send`, which is called again after failures that may pass.

        Raises:
            openai.APIStatusError: The provider refuses, or cannot send this object.
            ProviderError: The provider cannot be reached or is down.
        """
        tries = 0
        while True:
            try:
                result = send()
            except openai.APIStatusError as error:
                if not may_pass(error):
                    self._broken = 0  # it does answer
                    raise
                if not self._may_try_again(error, tries):
                    self._count_broken(error)
                    raise
                seconds = self._seconds(error, tries)
                self._wait(seconds, f"The provider answered {error.status_code}")
            except (openai.APIConnectionError, CutError) as error:
                if tries >= len(_BACKOFF):
                    raise ProviderError(
                        f"The connection was lost and did not come back ({error.__cause__ or error}"
                        "). What was copied is whole: run the same command again, and it goes on.",
                        code="connection_error",
                    ) from None
                self._wait(_BACKOFF[tries], "The connection was lost")
            else:
                self._broken = 0
                return result
            tries += 1

    def _may_try_again(self, error: openai.APIStatusError, tries: int) -> bool:
        return tries < (_LIMITED_TRIES if error.status_code == 429 else len(_BACKOFF))

    def _count_broken(self, error: openai.APIStatusError) -> None:
        self._broken += 1
        if error.status_code == 429 or self._broken >= _BROKEN_IN_A_ROW:
            raise ProviderError(
                f"The provider goes on answering {error.status_code}. What was copied is whole: "
                "run the same command again later, and it goes on.",
                code=error.code,
            ) from None

    def _seconds(self, error: openai.APIStatusError, tries: int) -> float:
        told = retry_after(error, self._clock())
        return _BACKOFF[min(tries, len(_BACKOFF) - 1)] if told is None else told

    def _wait(self, seconds: float, reason: str) -> None:
        if seconds >= 1:
            self._say(f"{reason}; trying again in {seconds:.0f} s ...")
        self._sleep(seconds)


def may_pass(error: openai.APIStatusError) -> bool:
    """Whether the same request may succeed later: the rule of the SDK, without an empty account."""
    if error.code == "insufficient_quota":
        return False
    told = error.response.headers.get("x-should-retry")
    if told in ("true", "false"):
        return bool(told == "true")
    return error.status_code in _PASSING or error.status_code >= 500


def retry_after(error: openai.APIStatusError, now: float) -> float | None:
    """The seconds that the provider asks to wait; None if it does not say."""
    headers = error.response.headers
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return _bounded(milliseconds / 1000)
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is None and text:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - now
        except (TypeError, ValueError, OverflowError):
            return None
    return None if seconds is None else _bounded(seconds)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), LONGEST_WAIT)
