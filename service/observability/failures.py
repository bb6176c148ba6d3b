"""When the log tells of what fails again and again: at the change, in a bounded reminder, and when it works."""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TypedDict

from service.errors import Unavailable

REMINDER_SECONDS = 60.0
"""What goes on failing in the same way is told at most so often."""
CHANGES_MAX = 3
"""So often in that time a failure after a success is news: where every other step fails, each would be."""


class Facts(TypedDict):
    """How often it has failed since it last worked, and for how long."""

    failures: int
    seconds: int


@dataclass(slots=True)
class Failures:
    """Those since it last worked. Times are monotonic seconds."""

    count: int = 0
    since: float = 0.0
    is_told: bool = False
    """Of any of them."""
    told: dict[str, float] = field(default_factory=dict)
    """When each kind was told last. Two that take turns are no news each time."""
    news: deque[float] = field(default_factory=lambda: deque(maxlen=CHANGES_MAX))
    """When all that was told was forgotten, the last few times."""

    def note(self, kind: str, now: float) -> Facts | None:
        """What to tell of a failure; None where this kind was told within REMINDER_SECONDS."""
        if not self.count:
            self._begin(now)
        self.count += 1
        if now - self.told.get(kind, -math.inf) < REMINDER_SECONDS:
            return None
        self.told[kind] = now
        self.is_told = True
        return self._facts(now)

    def end(self, now: float) -> Facts | None:
        """It has worked. What to tell of the failures before; None where nobody was told of them."""
        facts = self._facts(now) if self.is_told else None
        self.count = 0
        self.is_told = False
        return facts

    def _begin(self, now: float) -> None:
        self.since = now
        if len(self.news) < CHANGES_MAX or now - self.news[0] >= REMINDER_SECONDS:
            self.news.append(now)
            self.told.clear()

    def _facts(self, now: float) -> Facts:
        return {"failures": self.count, "seconds": round(now - self.since)}


def kind_of(error: Exception) -> str:
    """The same for errors that mean the same. What is away words it differently from one try to the next; two defects
    of one type are two where they come from two places.
    """
    name = type(error).__qualname__
    last = error.__traceback__
    if isinstance(error, Unavailable) or last is None:
        return name
    while last.tb_next:
        last = last.tb_next
    return f"{name} {last.tb_frame.f_code.co_filename}:{last.tb_lineno}"
