"""When a repeated failure is logged: when it changes, once a minute, and when it has ended."""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TypedDict

from service.errors import Unavailable

REMINDER_SECONDS = 60.0
"""A failure that continues in the same way is logged at most this often."""
CHANGES_MAX = 3
"""How many first failures after a success are logged in that time. Without a limit a step that fails every other time
would be logged each time.
"""


class Facts(TypedDict):
    """The number of failures since the last success, and their duration."""

    failures: int
    seconds: int


@dataclass(slots=True)
class Failures:
    """The failures since the last success. Times are monotonic seconds."""

    count: int = 0
    since: float = 0.0
    is_logged: bool = False
    """Whether any of them was logged."""
    logged: dict[str, float] = field(default_factory=dict)
    """When each kind was last logged, so that two kinds that alternate are not logged each time."""
    changes: deque[float] = field(default_factory=lambda: deque(maxlen=CHANGES_MAX))
    """When `logged` was last cleared, a few times."""

    def note(self, kind: str, now: float) -> Facts | None:
        """The facts to log about a failure; None if this kind was logged within REMINDER_SECONDS."""
        if not self.count:
            self._begin(now)
        self.count += 1
        if now - self.logged.get(kind, -math.inf) < REMINDER_SECONDS:
            return None
        self.logged[kind] = now
        self.is_logged = True
        return self._facts(now)

    def end(self, now: float) -> Facts | None:
        """Notes a success. The facts to log about the failures before it; None if none of them was logged."""
        facts = self._facts(now) if self.is_logged else None
        self.count = 0
        self.is_logged = False
        return facts

    def _begin(self, now: float) -> None:
        self.since = now
        if len(self.changes) < CHANGES_MAX or now - self.changes[0] >= REMINDER_SECONDS:
            self.changes.append(now)
            self.logged.clear()

    def _facts(self, now: float) -> Facts:
        return {"failures": self.count, "seconds": round(now - self.since)}


def kind_of(error: Exception) -> str:
    """Equal for errors with the same meaning. A store that is down words its errors differently from one try to the
    next. Two defects of one type differ if they come from two places.
    """
    name = type(error).__qualname__
    last = error.__traceback__
    if isinstance(error, Unavailable) or last is None:
        return name
    while last.tb_next:
        last = last.tb_next
    return f"{name} {last.tb_frame.f_code.co_filename}:{last.tb_lineno}"
