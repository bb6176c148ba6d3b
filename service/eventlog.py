"""The log: one row for each change of a reservation and each new session, in the transaction of the change.

An id is handed out before its commit, so who read by id would skip slow transactions. Committed events are therefore
numbered afterwards, without gaps, and readers take what is after their cursor by number. One process reads for each
cursor, under a lease by PostgreSQL's clock; one that comes back from the dead only repeats.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import asyncpg
import orjson

from service.database import Connection, columns
from service.reservation import SeatState, State


class Kind(StrEnum):
    """What an event tells."""

    SESSION_CREATED = "session.created"
    HELD = "reservation.held"
    CONFIRMED = "reservation.confirmed"
    EXPIRED = "reservation.expired"
    CANCELLED = "reservation.cancelled"

    @classmethod
    def of(cls, state: State) -> "Kind":
        """The event of a reservation that has come into `state`."""
        return cls[state.name]


@dataclass(frozen=True, slots=True)
class SeatChange:
    """A seat's new state, and its version, which grows by one with each change."""

    seat_id: int
    position: int
    state: SeatState
    version: int


@dataclass(frozen=True, slots=True)
class Event:
    """One row; `reservation_id` is None for a new session, whose seats are all available and not listed."""

    kind: Kind
    session_id: int
    reservation_id: UUID | None
    seats: Sequence[SeatChange]
    at: datetime


INSERT_EVENTS = """
insert into events (kind, session_id, reservation_id, seats, at)
select kind, session_id, reservation_id, seats, at
from unnest($1::text[], $2::bigint[], $3::uuid[], $4::jsonb[], $5::timestamptz[])
    with ordinality as new (kind, session_id, reservation_id, seats, at, n)
order by n
"""


async def append(connection: Connection, events: Iterable[Event]) -> None:
    """Adds the events in their order. The locks of their seats are held, so one seat's events are in order by id."""
    rows = [
        (
            event.kind.value,
            event.session_id,
            event.reservation_id,
            orjson.dumps([_json(seat) for seat in event.seats]).decode(),
            event.at,
        )
        for event in events
    ]
    if rows:
        await connection.execute(INSERT_EVENTS, *columns(rows))


def _json(seat: SeatChange) -> dict[str, int | str]:
    return {"seatId": seat.seat_id, "position": seat.position, "state": seat.state.value, "version": seat.version}


LAST = "log"
"""The cursor whose number is the last one that was given. It outlives the events, which are trimmed."""

ADD_LAST = """
insert into cursors (name, number)
select 'log', greatest(coalesce(max(number), 0), (select coalesce(max(number), 0) from cursors))
from events
on conflict do nothing
"""

HAS_LAST = """
select exists (select from cursors where name = 'log')
"""

LOCK_LAST = """
select number
from cursors
where name = 'log'
for no key update skip locked
"""

# A statement after the lock: in the same one the events that somebody else has just numbered would look new.
FIND_UNNUMBERED = """
select id
from events
where number is null
order by id
limit $1
"""

# By ids as an array: of a limit that is not known the planner fears the worst, and reads the whole log.
NUMBER_EVENTS = """
with numbered_events as (
    update events
    set number = $2 + committed_events.n
    from unnest($1::bigint[]) with ordinality as committed_events (id, n)
    where events.id = committed_events.id
    returning 1
),
moved_cursor as (
    update cursors
    set number = $2 + cardinality($1), moved_at = clock_timestamp()
    where name = 'log'
)
select count(*)
from numbered_events
"""


async def number_committed(connection: Connection, batch_max: int) -> int:
    """Numbers up to `batch_max` committed events in the order of their ids; how many. 0 where somebody else does."""
    # Most often there is nothing to do, and a look writes nothing: a lock would be written down.
    if await connection.fetchval(FIND_UNNUMBERED, 1) is None:
        return 0
    last = await connection.fetchval(LOCK_LAST)
    if last is None and not await connection.fetchval(HAS_LAST):
        await connection.execute(ADD_LAST)
        last = await connection.fetchval(LOCK_LAST)
    if last is None:
        return 0
    ids = [row["id"] for row in await connection.fetch(FIND_UNNUMBERED, batch_max)]
    return int(await connection.fetchval(NUMBER_EVENTS, ids, last)) if ids else 0


# Who is switched on for the first time starts at the end: what was before is nobody's business any more.
ADD_CURSOR = """
insert into cursors (name, number)
select $1, greatest(
    coalesce((select number from cursors where name = 'log'), 0),
    coalesce((select max(number) from events), 0)
)
on conflict do nothing
"""

TAKE_LEASE = """
update cursors
set owner = $2, leased_until = clock_timestamp() + make_interval(secs => $3 / 1000.0)
where name = $1
and (owner = $2 or leased_until is null or leased_until <= clock_timestamp())
returning number
"""

READ_LEASE = """
select number, owner,
    coalesce(leased_until > clock_timestamp(), false) as is_leased,
    coalesce(leased_until > clock_timestamp() + make_interval(secs => $2 / 2000.0), false) as is_fresh
from cursors
where name = $1
"""


async def take_lease(connection: Connection, name: str, owner: str, lease_ms: int) -> int | None:
    """Where the cursor is, if it is ours to move; None where somebody else has the lease.

    It is ours for `lease_ms` from when it was taken, and is renewed when half of that is over: a look writes nothing.
    """
    lease = await connection.fetchrow(READ_LEASE, name, lease_ms)
    if lease is None:
        await connection.execute(ADD_CURSOR, name)
    elif lease["is_leased"] and lease["owner"] != owner:
        return None
    elif lease["is_fresh"]:
        return int(lease["number"])
    number: int | None = await connection.fetchval(TAKE_LEASE, name, owner, lease_ms)
    return number


MOVE_CURSOR = """
update cursors
set number = $4, moved_at = clock_timestamp()
where name = $1
and owner = $2
and number = $3
"""


async def move_cursor(connection: Connection, name: str, owner: str, previous: int, number: int) -> bool:
    """Whether the cursor moved; it does not where another owner has taken it meanwhile."""
    tag: str = await connection.execute(MOVE_CURSOR, name, owner, previous, number)
    return tag != "UPDATE 0"


RELEASE_LEASE = """
update cursors
set owner = null, leased_until = null
where name = $1
and owner = $2
"""


async def release_lease(connection: Connection, name: str, owner: str) -> None:
    """Lets another process carry on at once."""
    await connection.execute(RELEASE_LEASE, name, owner)


@dataclass(frozen=True, slots=True)
class Cursor:
    """A reader of the log: how many numbered events it has not read, who reads for it now, when it moved last."""

    name: str
    unread: int
    reader: str | None
    moved_at: datetime


LIST_CURSORS = """
select name,
    (select max(number) from cursors) - number as unread,
    case when leased_until > clock_timestamp() then owner end as reader,
    moved_at
from cursors
where name <> 'log'
order by name
"""

DROP_CURSOR = """
delete from cursors
where name = $1
and name <> 'log'
and (leased_until is null or leased_until <= clock_timestamp())
"""


async def list_cursors(connection: Connection) -> list[Cursor]:
    """Everybody who reads the log, by name; until all of them have passed an event it stays."""
    return [Cursor(**row) for row in await connection.fetch(LIST_CURSORS)]


async def drop_cursor(connection: Connection, name: str) -> bool:
    """Forgets a reader that was switched off for good. Whether that was done: not while somebody reads for it."""
    tag: str = await connection.execute(DROP_CURSOR, name)
    return tag != "DELETE 0"


@dataclass(frozen=True, slots=True)
class Logged:
    """A row of the log; `seats` is JSON. `number` is None before it was given; a new hold only has `expires_at`, and
    `due_in_ms`, which is how far that was away when the row was read.
    """

    number: int | None
    kind: Kind
    session_id: int
    reservation_id: UUID | None
    seats: str
    at: datetime
    expires_at: datetime | None = None
    due_in_ms: int | None = None


READ_NUMBERED = """
select number, kind, events.session_id, reservation_id, seats::text as seats, at, r.expires_at,
    ceil(1000 * greatest(0, extract(epoch from r.expires_at - clock_timestamp())))::bigint as due_in_ms
from events
left join reservations as r on r.id = reservation_id and kind = 'reservation.held'
where number > $1
order by number
limit $2
"""


async def read_numbered(connection: Connection, after: int, batch_max: int) -> list[Logged]:
    """Up to `batch_max` events after the number, in the order of the numbers."""
    return [_logged(row) for row in await connection.fetch(READ_NUMBERED, after, batch_max)]


# One statement, so one snapshot: what it does not return was not committed at `as_of`.
READ_COMMITTED = """
select statement_timestamp() as as_of, unread.*
from (values (1)) as once (one)
left join lateral (
    (
        select number, kind, session_id, reservation_id, seats::text as seats, at
        from events
        where number > $1
        order by number
        limit $2
    )
    union all
    (
        select number, kind, session_id, reservation_id, seats::text as seats, at
        from events
        where number is null
        order by id
        limit $2
    )
) as unread on true
"""


async def read_committed(connection: Connection, after: int, batch_max: int) -> tuple[datetime, list[Logged]]:
    """PostgreSQL's time, and what was committed by then after the number: up to `batch_max` events with a number, in
    its order, then up to as many that have none yet, in the order of their ids.
    """
    rows = await connection.fetch(READ_COMMITTED, after, batch_max)
    return rows[0]["as_of"], [_logged(row) for row in rows if row["kind"] is not None]


def _logged(row: asyncpg.Record) -> Logged:
    return Logged(
        row["number"],
        Kind(row["kind"]),
        row["session_id"],
        row["reservation_id"],
        row["seats"],
        row["at"],
        row.get("expires_at"),
        row.get("due_in_ms"),
    )


# The age is looked at last: else everything that is not old yet would be read again and again.
TRIM_EVENTS = """
delete from events
where id = any(array(
    select id
    from events
    where id = any(array(
        select id
        from (
            select id, at
            from events
            where number <= (select min(number) from cursors)
            order by number
            limit $2
        ) as first_events
        where at < clock_timestamp() - make_interval(hours => $1)
    ))
    order by id
    for update skip locked
))
"""


async def trim(connection: Connection, keep_hours: int, batch_max: int) -> int:
    """Removes up to `batch_max` events that are older and that every cursor has passed; how many."""
    tag = await connection.execute(TRIM_EVENTS, keep_hours, batch_max)
    return int(str(tag).removeprefix("DELETE "))
