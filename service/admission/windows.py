"""The requests of the last minute, counted in two windows of a minute: the earlier one counts in part. Pure.

The part is the share of the earlier window that the last minute still covers, as if its requests had come evenly.
"""

from dataclasses import dataclass, field

WINDOW_SECONDS = 60
KEYS_MAX = 20_000
"""Keys of a limit in a window. Beyond it the oldest ones are forgotten. A key takes about 250 bytes."""


@dataclass(slots=True)
class Count:
    """The requests of one key in the window with this number, and in the one before.

    `shared` are those that Redis knew when it last answered, from all processes. `own` are this process's further ones.
    `sent` of them are on their way to Redis.
    """

    window: int
    before: int
    shared: int = 0
    own: int = 0
    sent: int = 0

    @property
    def total(self) -> int:
        """All requests that this process knows."""
        return self.shared + self.own

    def seconds_to_wait(self, limit: int, now: float) -> float | None:
        """The seconds until a further request fits; None if it does now."""
        elapsed = now - self.window * WINDOW_SECONDS
        if int(self.before * weight(elapsed)) + self.total < limit:
            return None
        if self.total < limit:
            return WINDOW_SECONDS * (1 - (limit - self.total) / self.before) - elapsed
        # In the next window, when these requests weigh less.
        return WINDOW_SECONDS - elapsed + WINDOW_SECONDS * (1 - limit / self.total)

    def settle(self, number: int, shared: int, before: int) -> None:
        """Notes that Redis knows `number` more of this process's requests, and the counts that it answered."""
        self.sent -= number
        self.own -= number
        self.shared = max(self.shared, shared)
        self.before = max(self.before, before)


def weight(elapsed: float) -> float:
    """The part of the earlier window that counts, `elapsed` seconds after its end."""
    return min(1.0, max(0.0, 1 - elapsed / WINDOW_SECONDS))


@dataclass(slots=True)
class Windows:
    """The counts of one limit in this window and the one before."""

    number: int = 0
    current: dict[str, Count] = field(default_factory=dict)
    earlier: dict[str, Count] = field(default_factory=dict)

    def count(self, who: str, now: float) -> Count:
        """The count of the key in the window of this time."""
        number = int(now // WINDOW_SECONDS)
        if number != self.number:
            self.earlier = self.current if number == self.number + 1 else {}
            self.number, self.current = number, {}
        count = self.current.get(who)
        if count is None:
            if len(self.current) >= KEYS_MAX:
                del self.current[next(iter(self.current))]
            known = self.earlier.get(who)
            count = self.current[who] = Count(number, known.total if known else 0)
        return count


@dataclass(frozen=True, slots=True)
class Limit:
    """Requests a minute for each key. `name` is shown to clients.

    A process may admit `ahead` requests of a key that Redis does not know yet. While Redis is down, `alone` counts.
    """

    name: str
    amount: int
    ahead: int = 0
    shared: Windows = field(default_factory=Windows)
    alone: Windows = field(default_factory=Windows)
