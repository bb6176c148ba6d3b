"""The ground that all clients share: the service's addresses, the sessions on sale, and the record of operations."""

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from load.campaign.history import Operation

RECENT_MAX = 20


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer with a token."""

    id: str
    token: str


@dataclass(frozen=True, slots=True)
class OnSale:
    """A session: its id, its seats by position, and the number of seats that may be sold in it."""

    id: int
    seats: Sequence[int]
    sold_max: int


@dataclass(slots=True)
class Field:
    """`sold` counts the seats that are paid for, or being paid, by session."""

    urls: Sequence[str]
    sessions: Sequence[OnSale]
    hold_seconds: float
    record: Callable[[Operation], None]
    ends_at: float
    sold: Counter[int] = field(default_factory=Counter)
    numbers: int = 0
    recent: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=RECENT_MAX))
    """Recent holds with their customers, for attempts by other customers."""

    def next_number(self) -> int:
        """The id of the next operation."""
        self.numbers += 1
        return self.numbers

    @property
    def is_over(self) -> bool:
        """Whether the clients shall stop."""
        return time.monotonic() >= self.ends_at
