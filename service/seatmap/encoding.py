"""The bytes of a seat map in Redis, decoded; and changes of seats, in portions that Redis takes at once.

A letter a seat by position, and four bytes a seat, big-endian, for its version. `service.seatmap.keys` lists the keys.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import NamedTuple

from service.reservation import SeatState

STATE_OF = {SeatState.AVAILABLE: b"A", SeatState.HELD: b"H", SeatState.SOLD: b"S"}
LETTERS = b"".join(STATE_OF.values())
COUNT_DIGITS_MAX = 9
NEVER_CHANGED = 1
"""The version of a seat that was never changed, and so is right in a new map."""
SEATS_PER_CALL = 500
"""A longer script would delay other clients by more than a few ms."""
SEATS_PER_PIPELINE = 2_000
"""About 15 ms in Redis and 15 ms here: well below `redis_timeout_ms`, even on a busy machine."""
CALLS_PER_PIPELINE = 200
BEGIN_OF_TIME = datetime(1970, 1, 1, tzinfo=UTC)


class Damaged(Enum):
    """The value of a map, or of a key, whose type or content the service never writes."""

    DAMAGED = "damaged"


DAMAGED = Damaged.DAMAGED

Answer = bytes | list[bytes | None] | Damaged | None
"""An answer of Redis: a string, the fields of a hash, or None for a missing key."""


@dataclass(frozen=True, slots=True)
class Change:
    """A seat's state at a version, by position."""

    position: int
    state: bytes
    version: int


class Counts(NamedTuple):
    """Seats of a session that are held and sold; the others are available."""

    held: int
    sold: int


Call = tuple[int, Sequence[Change]]
"""A session, and changes of it that one script applies."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """Everything committed at `as_of`, by PostgreSQL's clock, is in every complete map of the epoch. That moment was
    `age_ms` ago.
    """

    epoch: str
    as_of: datetime
    age_ms: int

    @property
    def history(self) -> str:
        """PostgreSQL's part of the epoch."""
        return self.epoch.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Kept:
    """A complete map: a letter a seat, four bytes of version a seat, and the numbers of seats held and sold."""

    states: bytes
    versions: bytes
    held: int
    sold: int


DAMAGED_MAP = Kept(b"", b"", 0, 0)
"""A map that is unlike every session's, because every session has seats."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Redis's time, its part of the epoch, and the number in the log that the maps of `place_epoch` have reached."""

    ms: int
    run: str
    place_epoch: str
    place: int


def microseconds_of(as_of: datetime) -> int:
    """Microseconds since 1970, as the watermark has them."""
    return (as_of - BEGIN_OF_TIME) // timedelta(microseconds=1)


def milliseconds_of(time: tuple[int, int]) -> int:
    """Milliseconds since 1970 from Redis's TIME, which is seconds and microseconds."""
    seconds, microseconds = time
    return seconds * 1000 + microseconds // 1000


def freshness_of(mark: Answer, now_ms: int) -> Freshness | None:
    """The freshness by the watermark at this moment of Redis's clock; None where it is missing or damaged."""
    if not isinstance(mark, bytes):
        return None
    try:
        epoch, began_ms, microseconds = mark.decode().split("|")
        as_of = BEGIN_OF_TIME + timedelta(microseconds=int(microseconds))
        return Freshness(epoch, as_of, now_ms - int(began_ms))
    except (ValueError, OverflowError):
        return None


def place_of(place: bytes | None) -> tuple[str, int]:
    """The epoch, and the number in the log that its maps have reached; of no epoch where it is missing or damaged."""
    try:
        epoch, number = (place or b"").decode().rsplit("|", 1)
        return epoch, int(number)
    except ValueError:
        return "", 0


def states_of(states: Answer) -> bytes | Damaged | None:
    """A letter a seat of a complete map; DAMAGED where one is unknown; None where the map is missing or incomplete."""
    match states:
        case bytes() if states[:1] == b"C":
            return DAMAGED if states.translate(None, LETTERS) != b"C" else states[1:]
        case Damaged():
            return states
        case _:
            return None


def counts_of(flag: Answer, fields: Answer) -> Counts | Damaged | None:
    """The counts of a complete map; None where the map is missing or incomplete."""
    match flag, fields:
        case b"C", [bytes(held), bytes(sold)]:
            return Counts(int(held), int(sold)) if _is_count(held) and _is_count(sold) else DAMAGED
        case (Damaged(), _) | (_, Damaged()):
            return DAMAGED
        case _:
            return None


def _is_count(digits: bytes) -> bool:
    # Python refuses to read a number of some thousand digits.
    return digits.isdigit() and len(digits) <= COUNT_DIGITS_MAX


def kept_of(states: Answer, versions: Answer, fields: Answer) -> Kept | None:
    """A complete map, or DAMAGED_MAP; None where a part of it is missing, or it is incomplete."""
    counts = counts_of(states[:1] if isinstance(states, bytes) else states, fields)
    if DAMAGED in (versions, counts):
        return DAMAGED_MAP
    if isinstance(states, bytes) and isinstance(versions, bytes) and isinstance(counts, Counts):
        return Kept(states[1:], versions, *counts)
    return None


def parts(changes: Sequence[Change]) -> Iterator[Sequence[Change]]:
    """The changes in parts of at most SEATS_PER_CALL."""
    return (changes[start : start + SEATS_PER_CALL] for start in range(0, len(changes), SEATS_PER_CALL))


def pipelines(changes: dict[int, list[Change]]) -> Iterator[list[Call]]:
    """All changes by session, in pipelines of at most SEATS_PER_PIPELINE and CALLS_PER_PIPELINE."""
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
    """The arguments of a script: three for each change."""
    return [part for change in changes for part in (change.position, change.state, change.version)]
