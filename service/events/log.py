"""The log: one row for each change of a reservation and each new session, in the transaction of the change.

An id is handed out before its commit, so a reader by id would skip slow transactions. Committed events are therefore
numbered afterwards (numbering.py), and readers take the events after their cursor (cursors.py) by number.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from service.database import Connection, columns
from service.observability import tracing
from service.reservation import SeatState, State


class Kind(StrEnum):
    """The kinds of event."""

    SESSION_CREATED = "session.created"
    HELD = "reservation.held"
    CONFIRMED = "reservation.confirmed"
    EXPIRED = "reservation.expired"
    CANCELLED = "reservation.cancelled"

    @classmethod
    def of(cls, state: State) -> "Kind":
        """The event of a reservation that has changed to `state`."""
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
    """One row. A new session has None for `reservation_id`, and its seats, which are all available, are not listed."""

    kind: Kind
    session_id: int
    reservation_id: UUID | None
    seats: Sequence[SeatChange]
    at: datetime


# The two writes of the ledger have the same statement as a part of theirs: it saves them a round trip.
INSERT_EVENTS = """
insert into events (kind, session_id, reservation_id, seats, at, traceparent)
select kind, session_id, reservation_id, seats, at, traceparent
from unnest($1::text[], $2::bigint[], $3::uuid[], $4::jsonb[], $5::timestamptz[], $6::text[])
    with ordinality as new (kind, session_id, reservation_id, seats, at, traceparent, n)
order by n
"""


async def append(connection: Connection, events: Iterable[Event]) -> None:
    """Adds the events in their order, of which there is at least one."""
    await connection.execute(INSERT_EVENTS, *rows(events))


def rows(events: Iterable[Event]) -> list[list[Any]]:
    """The columns of the events in their order, of which there is at least one.

    The locks of their seats are held when they are added, so one seat's events are in order by id.
    """
    new = [
        (
            event.kind.value,
            event.session_id,
            event.reservation_id,
            orjson.dumps([_json(seat) for seat in event.seats]).decode(),
            event.at,
            tracing.traceparent_of(event.reservation_id),
        )
        for event in events
    ]
    return columns(new)


def _json(seat: SeatChange) -> dict[str, int | str]:
    return {"seatId": seat.seat_id, "position": seat.position, "state": seat.state.value, "version": seat.version}


@dataclass(frozen=True, slots=True)
class Logged:
    """A row of the log; `seats` is JSON. It has no `number` until the sequencer gives one. Only new holds have
    `expires_at`, and `due_in_ms`, the time until then when the row was read. `traceparent` is that of the request, if
    it was traced. Numbers compare only within one `log`.
    """

    number: int | None
    kind: Kind
    session_id: int
    reservation_id: UUID | None
    seats: str
    at: datetime
    log: str = ""
    expires_at: datetime | None = None
    due_in_ms: int | None = None
    traceparent: str | None = None


READ_NUMBERED = """
select number, kind, events.session_id, reservation_id, seats::text as seats, at, r.expires_at,
    events.traceparent,
    ceil(1000 * greatest(0, extract(epoch from r.expires_at - clock_timestamp())))::bigint as due_in_ms
from events
left join reservations as r on r.id = reservation_id and kind = 'reservation.held'
where number > $1
order by number
limit $2
"""


# A restored database, or a promoted standby, may have lost commits: it gives their numbers again.
READ_LOG_NAME = """
select concat_ws('-', system_identifier, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), oid)
from pg_control_system()
cross join pg_database
where datname = current_database()
"""


async def read_numbered(connection: Connection, after: int, batch_max: int) -> list[Logged]:
    """Up to `batch_max` events after the number, in the order of the numbers."""
    rows = await connection.fetch(READ_NUMBERED, after, batch_max)
    log = await connection.fetchval(READ_LOG_NAME) if rows else ""
    return [_logged(row, log) for row in rows]


# One statement, so one snapshot: an event that it does not return was not committed at `as_of`, when its transaction
# began, which may be the statement itself. statement_timestamp() would be too late: it may be the time of execution,
# after the snapshot was taken.
READ_COMMITTED = """
select now() as as_of, unread.*
from (values (1)) as once (one)
left join lateral (
    (
        select number, kind, session_id, reservation_id, seats::text as seats, at, traceparent
        from events
        where number > $1
        order by number
        limit $2
    )
    union all
    (
        select number, kind, session_id, reservation_id, seats::text as seats, at, traceparent
        from events
        where number is null
        order by id
        limit $2
    )
) as unread on true
"""


async def read_committed(connection: Connection, after: int, batch_max: int) -> tuple[datetime, list[Logged]]:
    """PostgreSQL's time, and the events after the number that were committed by then: up to `batch_max` numbered ones
    in order, then up to `batch_max` without a number yet, in the order of their ids.
    """
    rows = await connection.fetch(READ_COMMITTED, after, batch_max)
    return rows[0]["as_of"], [_logged(row) for row in rows if row["kind"] is not None]


def _logged(row: asyncpg.Record, log: str = "") -> Logged:
    return Logged(
        row["number"],
        Kind(row["kind"]),
        row["session_id"],
        row["reservation_id"],
        row["seats"],
        row["at"],
        log,
        row.get("expires_at"),
        row.get("due_in_ms"),
        row["traceparent"],
    )


# The age is checked last: otherwise all younger events would be read in every step. The beginning of the log is removed
# as a whole, because `at` may go back from one event to the next, as where a clock was set back. An event in the future
# keeps no other event: it is removed with the next old one. Only a whole batch in the future waits for its time.
TRIM_EVENTS = """
with aged_events as materialized (
    select id, number, max(at) filter (where at <= clock_timestamp()) over (order by number) as newest_at
    from (
        select id, number, at
        from events
        where number <= (select min(number) from cursors)
        order by number
        limit $2
    ) as first_events
)
delete from events
where id = any(array(
    select id
    from events
    where id = any(array(
        select id
        from aged_events
        where number <= (
            select max(number)
            from aged_events
            where newest_at < clock_timestamp() - make_interval(hours => $1)
        )
    ))
    order by id
    for update skip locked
))
"""


async def trim(connection: Connection, keep_hours: int, batch_max: int) -> int:
    """Removes up to `batch_max` events that are older and that every cursor has passed. Returns how many."""
    tag = await connection.execute(TRIM_EVENTS, keep_hours, batch_max)
    return int(str(tag).removeprefix("DELETE "))
