"""What the log says of a loop that fails: a line at the change, a bounded reminder, and a line when it works again."""

from collections import deque
from dataclasses import dataclass, field

import structlog

from service.errors import Unavailable

REMINDER_SECONDS = 60.0
"""What goes on failing in the same way is told at most so often."""
CHANGES_MAX = 3
"""A loop that fails every other time is told of at most so often in that time: each failure would be a change."""

log = structlog.stdlib.get_logger("rowlock.expirer")


@dataclass(slots=True)
class Failures:
    """The failures of one loop since it last worked. Times are monotonic seconds."""

    count: int = 0
    since: float = 0.0
    told_since: set[str] = field(default_factory=set)
    """The kinds of error that were told since then: two that take turns are no change each time."""
    told: dict[str, deque[float]] = field(default_factory=dict)
    """When each kind was told last, also before that."""

    def note(self, error: Exception, now: float) -> None:
        """Tells of it where it is news, or was not told for REMINDER_SECONDS; a defect with where it happened."""
        if not self.count:
            self.since = now
        self.count += 1
        kind = kind_of(error)
        told = self.told.setdefault(kind, deque(maxlen=CHANGES_MAX))
        is_change = kind not in self.told_since
        # What is no news must wait for its last line to grow old; what is, only for the first of the last few.
        before = told[-1] if not is_change else told[0] if len(told) == CHANGES_MAX else None
        if before is not None and now - before < REMINDER_SECONDS:
            return
        told.append(now)
        self.told_since.add(kind)
        facts = {"failures": self.count, "seconds": round(now - self.since), "error": described(error)}
        if isinstance(error, Unavailable):
            log.warning("step failed", **facts)
        else:
            log.error("step failed", **facts, exc_info=error)

    def end(self, now: float) -> None:
        """A step has worked."""
        if self.told_since:
            log.info("step works again", failures=self.count, seconds=round(now - self.since))
        self.count = 0
        self.told_since.clear()


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


def described(error: Exception) -> str:
    """With its cause, unless it quotes that itself."""
    cause = error.__cause__
    return repr(error) if cause is None or type(cause).__name__ in str(error) else f"{error!r}: {cause!r}"
