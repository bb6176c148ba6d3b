"""What stands in Redis of a seat map, read from its bytes, and changes of seats in portions that Redis takes at once.

A letter a seat by position, and four bytes a seat, big-endian, for its version. `service.seatmap.cached` reads and
writes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from service.reservation import SeatState

STATE_OF = {SeatState.AVAILABLE: b"A", SeatState.HELD: b"H", SeatState.SOLD: b"S"}
NEVER_CHANGED = 1
"""The version of a seat that is as it was made, which is what a new map has anyway."""
SEATS_PER_CALL = 500
"""A longer script would keep others waiting for more than a few ms."""
SEATS_PER_PIPELINE = 2_000
"""Some 15 ms of Redis and as many of ours: far from `redis_timeout_ms` on a busy machine too."""
CALLS_PER_PIPELINE = 200
BEGIN_OF_TIME = datetime(1970, 1, 1, tzinfo=UTC)
DAMAGED = object()
"""What Redis answers where a key is of another kind than ours are: somebody else has written it."""


@dataclass(frozen=True, slots=True)
class Change:
    """A seat's state at a version, by position."""

    position: int
    state: bytes
    version: int


Call = tuple[int, Sequence[Change]]
"""Changes of one session that one script applies."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """What was committed at `as_of` by PostgreSQL's clock is in every complete map of the epoch; `age_ms` ago."""

    epoch: str
    as_of: datetime
    age_ms: int

    @property
    def history(self) -> str:
        """PostgreSQL's part of the epoch."""
        return self.epoch.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Kept:
    """All of a complete map: a letter a seat, four bytes of its version a seat, and how many are held and sold."""

    states: bytes
    versions: bytes
    held: int
    sold: int


DAMAGED_MAP = Kept(b"", b"", 0, 0)
"""No session's: each has seats."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Redis's time, its part of the epoch, and how far in the log the maps of which epoch are."""

    ms: int
    run: str
    place_epoch: str
    place: int


def microseconds_of(as_of: datetime) -> int:
    """Since 1970, as the watermark has it."""
    return (as_of - BEGIN_OF_TIME) // timedelta(microseconds=1)


def freshness_of(mark: Any, now_ms: int) -> Freshness | None:
    """What the watermark says at this moment by Redis's clock; None where it is none, whatever somebody has written."""
    if mark is None or mark is DAMAGED:
        return None
    try:
        epoch, began_ms, microseconds = mark.decode().split("|")
        as_of = BEGIN_OF_TIME + timedelta(microseconds=int(microseconds))
        return Freshness(epoch, as_of, now_ms - int(began_ms))
    except (ValueError, OverflowError):
        return None


def place_of(place: bytes | None) -> tuple[str, int]:
    """The epoch, and how far in the log its maps are; no epoch's where it is none, whatever somebody has written."""
    try:
        epoch, number = (place or b"").decode().rsplit("|", 1)
        return epoch, int(number)
    except ValueError:
        return "", 0


def counts_of(counts: Any) -> tuple[int, int] | None:
    """Held and sold, as `meta` has them; None where they are none."""
    if counts is DAMAGED or not all(count.isdigit() for count in counts):
        return None
    held, sold = counts
    return int(held), int(sold)


def parts(changes: Sequence[Change]) -> Iterator[Sequence[Change]]:
    """As many as one script takes, at most, in each."""
    return (changes[start : start + SEATS_PER_CALL] for start in range(0, len(changes), SEATS_PER_CALL))


def pipelines(changes: dict[int, list[Change]]) -> Iterator[list[Call]]:
    """All changes by session, in pipelines of SEATS_PER_PIPELINE and CALLS_PER_PIPELINE at most."""
    pipeline: list[Call] = []
    seats = 0
    for session_id, of_session in changes.items():
        for part in parts(of_session):
            if seats + len(part) > SEATS_PER_PIPELINE or len(pipeline) == CALLS_PER_PIPELINE:
                yield pipeline
                pipeline, seats = [], 0
            pipeline.append((session_id, part))
            seats += len(part)
    if pipeline:
        yield pipeline


def flat(changes: Iterable[Change]) -> list[int | bytes]:
    """As a script takes them: three arguments for each."""
    return [part for change in changes for part in (change.position, change.state, change.version)]
