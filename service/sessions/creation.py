"""Creates sessions with their seats."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from uuid import UUID

import asyncpg

from service.database import Connection, expect_rows
from service.errors import IdempotencyKeyReused, Invalid, RoomOccupied, TokenFault, Unauthenticated
from service.events import log as event_log
from service.events.log import Event, Kind
from service.reservation import Seat


@dataclass(frozen=True, slots=True)
class NewSession:
    """The session that a manager asks for: `price` in minor units of `currency`, distinct `placements` in order."""

    movie: str
    room: str
    showtime: datetime
    duration_minutes: int
    price: int
    currency: str
    placements: Sequence[str]

    def fingerprint(self) -> bytes:
        """The same for the same content."""
        texts = (self.movie, self.room, self.showtime.isoformat(), self.duration_minutes, self.price, self.currency)
        return sha256(repr((texts, tuple(self.placements))).encode()).digest()


@dataclass(frozen=True, slots=True)
class Session:
    """A session as it is stored. Each of its `seat_count` seats has a price of its own, today the session's."""

    id: int
    movie: str
    room: str
    showtime: datetime
    duration_minutes: int
    price: int
    currency: str
    seat_count: int
    created_at: datetime
    paused_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Created:
    """A session with its seats by position. `replayed`: an earlier request with the same key has created it."""

    session: Session
    seats: list[Seat]
    replayed: bool = False


INSERT_SEATS_SECONDS_MAX = 30
"""100,000 seats take longer than other statements of a request may. No other transaction waits for their locks."""

SHOWTIME_YEARS_MAX = 100
"""A showtime further ahead is a typing error; the last moment of the year 9999 would even be stored as infinity."""

ALLOW_SLOW_STATEMENTS = f"""
set local statement_timeout = '{INSERT_SEATS_SECONDS_MAX}s'
"""

# Compared with PostgreSQL's clock: no process compares its own clock with a showtime.
INSERT_SESSION = """
insert into sessions (
    movie, room, showtime, duration_minutes, price, currency, seat_count, created_by, idempotency_key,
    request_fingerprint
)
select $1, $2, $3, $4, $5, $6, $7, $8, $10, $11
where $3 > clock_timestamp()
and $3 < clock_timestamp() + make_interval(years => $9)
returning id, created_at
"""

INSERT_SEATS = """
insert into seats (session_id, position, placement, price)
select $1, n - 1, placement, $2
from unnest($3::text[]) with ordinality as new (placement, n)
order by n
returning id, position, placement, price
"""


# For all that creates with this key, or in this room, until the transaction's end.
LOCK_TEXT = """
select pg_advisory_xact_lock(hashtextextended($1, 0))
"""

FIND_BY_KEY = """
select id, movie, room, showtime, duration_minutes, price, currency, seat_count, created_at, paused_at,
    request_fingerprint
from sessions
where created_by = $1
and idempotency_key = $2
"""

LIST_SEATS_OF_SESSION = """
select id, position, placement, price
from seats
where session_id = $1
order by position
"""

# A session lasts a day at most, so earlier ones have ended.
FIND_OVERLAP = """
select id, showtime
from sessions
where lower(room) = lower($1)
and showtime > $2::timestamptz - interval '1 day'
and showtime < $2::timestamptz + make_interval(mins => $3)
and showtime + make_interval(mins => duration_minutes) > $2
order by showtime, id
limit 1
"""


async def create_once(
    connection: Connection, new: NewSession, created_by: UUID, key: str | None, *, allow_overlap: bool
) -> Created:
    """The session, or the one that an earlier request of this manager with the same key has created.

    Raises what `create` raises, IdempotencyKeyReused for other content, and RoomOccupied.
    """
    if key is not None:
        await connection.execute(LOCK_TEXT, f"session of {created_by} with {key}")
        if found := await connection.fetchrow(FIND_BY_KEY, created_by, key):
            return await _replayed(connection, new, found)
    if not allow_overlap:
        await connection.execute(LOCK_TEXT, f"room {new.room.lower()}")
        if occupied := await connection.fetchrow(FIND_OVERLAP, new.room, new.showtime, new.duration_minutes):
            raise RoomOccupied(*occupied)
    return Created(*await create(connection, new, created_by, key))


async def _replayed(connection: Connection, new: NewSession, found: asyncpg.Record) -> Created:
    *columns, fingerprint = found
    if fingerprint != new.fingerprint():
        raise IdempotencyKeyReused
    seats = await connection.fetch(LIST_SEATS_OF_SESSION, found["id"], timeout=INSERT_SEATS_SECONDS_MAX + 1)
    return Created(Session(*columns), [Seat(*seat) for seat in seats], replayed=True)


async def create(
    connection: Connection, new: NewSession, created_by: UUID, key: str | None = None
) -> tuple[Session, list[Seat]]:
    """The session and its seats by position.

    Raises Invalid where the showtime is past or too far ahead, Unauthenticated where the manager's account was deleted.
    """
    await connection.execute(ALLOW_SLOW_STATEMENTS)
    row = await _insert_session(connection, new, created_by, key)
    if row is None:
        raise Invalid("showtime", f"must be in the future, at most {SHOWTIME_YEARS_MAX} years ahead")
    seats = await connection.fetch(
        INSERT_SEATS, row["id"], new.price, list(new.placements), timeout=INSERT_SEATS_SECONDS_MAX + 1
    )
    expect_rows("seats created", len(seats), len(new.placements))
    await event_log.append(connection, [Event(Kind.SESSION_CREATED, row["id"], None, (), row["created_at"])])
    session = Session(
        row["id"],
        new.movie,
        new.room,
        new.showtime,
        new.duration_minutes,
        new.price,
        new.currency,
        len(new.placements),
        row["created_at"],
    )
    return session, [Seat(*seat) for seat in seats]


async def _insert_session(
    connection: Connection, new: NewSession, created_by: UUID, key: str | None
) -> asyncpg.Record | None:
    try:
        return await connection.fetchrow(
            INSERT_SESSION,
            new.movie,
            new.room,
            new.showtime,
            new.duration_minutes,
            new.price,
            new.currency,
            len(new.placements),
            created_by,
            SHOWTIME_YEARS_MAX,
            key,
            new.fingerprint() if key is not None else None,
        )
    except asyncpg.ForeignKeyViolationError as error:
        if error.constraint_name != "sessions_created_by_fkey":
            raise
        raise Unauthenticated(TokenFault.NO_ACCOUNT) from None
