"""The bounds of a row, and whether its measurements keep them. Numbers only: measures nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from rich.markup import escape
from rich.table import Table

POLL_SECONDS = 0.05  # between two requests of a poller
MAX_POLL_P99 = 0.1  # seconds
MAX_CHAT_SLOWDOWN = 4.0  # of the worst chat, over the usual median
MAX_QUIET = 1.0  # seconds of computing for a client that left
MAX_MEMORY_KEPT = 100.0  # MB, a minute after
MAX_DESCRIPTORS_KEPT = 8  # idle connections of the honest clients come and go


@dataclass(frozen=True, slots=True)
class Usage:
    """The memory and the open descriptors of a server process and its children."""

    mb: float
    descriptors: int


@dataclass(frozen=True, slots=True)
class Row:
    """The measurements of one attack; times in seconds.

    Attributes:
        polls: The times of the pollers' requests, by path.
        usual: The times of honest chats before the attack.
        chats: Those during it.
        failures: The errors of honest requests.
        answers: What the offender got: status and message, each kind with its count.
        quiet: Seconds until the server computed no more after the offender left; None: not within
            the time that was waited.
        after: The usage a minute after, or as soon as memory is back.
        died: Whether the server process ended.
    """

    name: str
    polls: dict[str, list[float]]
    usual: list[float]
    chats: list[float]
    failures: list[str]
    answers: dict[str, int]
    quiet: float | None
    before: Usage
    peak_mb: float
    after: Usage
    died: bool = False


def p99(times: Sequence[float]) -> float:
    """The 99th percentile over all moments at which a request was due.

    A poller waits for its response. A request that took long stands also for those that were due
    meanwhile and would have waited for the rest of that time.
    """
    waits = [
        time - late * POLL_SECONDS
        for time in times
        for late in range(1 + int(max(0.0, time) / POLL_SECONDS))
    ]
    if len(waits) < 2:
        return max(waits, default=0.0)
    return quantiles(waits, n=100, method="inclusive")[98]


def slowdown(row: Row) -> float:
    """The worst honest chat over the usual median. The worst, since one stall is what counts."""
    return max(row.chats, default=float("inf")) / median(row.usual)


def broken(row: Row) -> list[str]:
    """The bounds that a row breaks, in words."""
    checks = {
        "the server ended": row.died,
        "honest requests failed": bool(row.failures),
        **{
            f"{path} p99 over {1000 * MAX_POLL_P99:.0f} ms": p99(times) > MAX_POLL_P99
            for path, times in row.polls.items()
        },
        f"chat over {MAX_CHAT_SLOWDOWN:g} × its usual time": slowdown(row) > MAX_CHAT_SLOWDOWN,
        f"computed for over {MAX_QUIET:g} s after the client left": (
            row.quiet is None or row.quiet > MAX_QUIET
        ),
        f"over {MAX_MEMORY_KEPT:g} MB kept": row.after.mb - row.before.mb > MAX_MEMORY_KEPT,
        "descriptors kept": (row.after.descriptors - row.before.descriptors > MAX_DESCRIPTORS_KEPT),
    }
    return [bound for bound, is_broken in checks.items() if is_broken]


def table(rows: Sequence[Row]) -> Table:
    """A line for each row."""
    shown = Table(
        "attack",
        "polls p99 ms",
        "chat: usual, median, worst ms",
        "quiet after",
        "MB before, peak, after",
        "descriptors",
        "the offender got",
        "broken bounds",
    )
    for row in rows:
        chats = (median(row.usual), median(row.chats or [0.0]), max(row.chats, default=0.0))
        shown.add_row(
            row.name,
            ", ".join(f"{1000 * p99(times):.0f}" for times in row.polls.values()),
            ", ".join(f"{1000 * time:.0f}" for time in chats) + f" ({slowdown(row):.1f} ×)",
            "never" if row.quiet is None else f"{row.quiet:.1f} s",
            ", ".join(f"{mb:,.0f}" for mb in (row.before.mb, row.peak_mb, row.after.mb)),
            f"{row.before.descriptors}, {row.after.descriptors}",
            escape("; ".join(f"{count} × {answer}" for answer, count in row.answers.items())),
            "; ".join(broken(row)) or "none",
        )
    return shown


def growth(samples: Sequence[float]) -> float:
    """The growth of a series: the median of its last sixth less that of its second.

    The first sixth warms up.
    """
    sixth = len(samples) // 6
    return median(samples[-sixth:]) - median(samples[sixth : 2 * sixth]) if sixth else 0.0
