"""The progress of a job as a plain value, which `follow` yields and the terminal draws."""

from dataclasses import dataclass

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class Progress:
    """A job's state after an event; `message` is the event's text, None after a mere poll."""

    job_id: str
    status: str
    message: str | None = None
    step: int = 0
    total_steps: int | None = None
    epochs: int | None = None
    loss: float | None = None
    seconds_left: float | None = None

    @property
    def finished(self) -> bool:
        return self.status in TERMINAL

    @property
    def epoch(self) -> int | None:
        """The current epoch, counted from 1; None while unknown."""
        if not (self.step and self.total_steps and self.epochs):
            return None
        return min(self.epochs, (self.step - 1) * self.epochs // self.total_steps + 1)
