"""States of seats as they were read, and a memory of the last of them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from cachetools import TTLCache

RECENT_SEATS_MAX = 10_000_000

Source = Literal["redis", "postgresql"]


@dataclass(frozen=True, slots=True)
class Seen:
    """States, a letter a seat by position. `as_of` was `age_ms` before `at`, by the event loop's clock."""

    history: str
    states: bytes
    source: Source
    as_of: datetime
    age_ms: int
    at: float


def recent(seconds: float) -> TTLCache[int, Seen]:
    """The states that were read within the last seconds, by session."""
    return TTLCache(RECENT_SEATS_MAX, seconds, getsizeof=lambda seen: len(seen.states))
