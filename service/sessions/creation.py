"""Creates sessions with their seats."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from service.database import Connection, expect_rows
from service.errors import Invalid, Unauthenticated
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


INSERT_SEATS_SECONDS_MAX = 30
"""100,000 seats take longer than other statements of a request may. No other transaction waits for their locks."""

SHOWTIME_YEARS_MAX = 100
"""A showtime further ahead is a typing error; the last moment of the year 9999 would even be stored as infinity."""

ALLOW_SLOW_STATEMENTS = f"""
set local statement_timeout = '{INSERT_SEATS_SECONDS_MAX}s'
"""

# Compared with PostgreSQL's clock: no process compares its own clock with a showtime.
INSERT_SESSION = """
insert into sessions (movie, room, showtime, duration_minutes, price, currency, seat_count, created_by)
select $1, $2, $3, $4, $5, $6, $7, $8
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


async def create(connection: Connection, new: NewSession, created_by: UUID) -> tuple[Session, list[Seat]]:
    """The session and its seats by position.

    Raises Invalid where the showtime is past or too far ahead, Unauthenticated where the manager's account was deleted.
    """
    await connection.execute(ALLOW_SLOW_STATEMENTS)
    row = await _insert_session(connection, new, created_by)
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


async def _insert_session(connection: Connection, new: NewSession, created_by: UUID) -> asyncpg.Record | None:
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
        )
    except asyncpg.ForeignKeyViolationError as error:
        if error.constraint_name != "sessions_created_by_fkey":
            raise
        raise Unauthenticated from None
