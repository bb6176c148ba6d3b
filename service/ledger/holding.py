"""The first write: makes reservations. Only this module and `service.ledger.settling` change seats.

The caller owns the transaction and keeps the lock order: see `service.ledger.booking`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import asyncpg

from service.database import Connection, columns, expect_rows, lock_rows
from service.errors import Refusal
from service.events import log as event_log
from service.events.log import Event, Kind, SeatChange
from service.ledger.claims import (
    Accepted,
    Claim,
    Held,
    HoldRequest,
    LockedSeat,
    Overdue,
    Remembered,
    Render,
    Rules,
    Situation,
)
from service.ledger.cooldown import Ended, oldest_id
from service.observability import tracing
from service.reservation import Seat, SeatState, State

LOCK_CUSTOMERS = """
select id
from accounts
where id = any($1::uuid[])
order by id
for no key update
"""

# A statement after the customers' locks, under which alone their reservations are inserted: its snapshot has all that a
# twin has committed. Seats are read as they are when they are locked, and those of remembered requests are not locked.
LOCK_SEATS_TO_HOLD = """
with remembered as materialized (
    select n, r.*
    from unnest($1::uuid[], $2::text[]) with ordinality as asked (customer_id, idempotency_key, n)
    cross join lateral (
        select id, customer_id, idempotency_key, request_fingerprint, reply
        from reservations
        where customer_id = asked.customer_id
        and idempotency_key = asked.idempotency_key
        offset 0
    ) as r
    union all
    select n, r.*
    from unnest($3::uuid[]) with ordinality as asked (id, n)
    cross join lateral (
        select id, null::uuid, null::text, request_fingerprint, reply
        from reservations
        where id = asked.id
        offset 0
    ) as r
),
locked_seats as (
    select seats.id as seat_id, position, placement, seats.price, session_id, state, reservation_id, version,
        showtime, currency
    from seats
    cross join lateral (select showtime, currency from sessions where id = session_id offset 0) as of_session
    where seats.id = any(array(
        select seat_id
        from unnest($4::bigint[], $5::bigint[]) as wanted (seat_id, n)
        where n not in (select n from remembered)
    ))
    order by seats.id
    for no key update of seats
)
select id, customer_id, idempotency_key, request_fingerprint, reply, locked_seats.*
from remembered
full join locked_seats on false
"""

# The clock, in a statement after the last lock, the claims, of which there may be none, and the paused sessions: a
# statement that waits for a lock has them as they were before the wait.
# HELD and CONFIRMED in one statement, overdue or not: otherwise a payment in flight would escape the limit. The unpaid
# ends of the last minutes are a range of ids (uuid7), so the customer's older ones cost nothing. Of several customers
# they may be of each other's sessions too: a second join would cost more than these rows, which nothing asks for.
READ_CLAIMS = """
select clock.now, claim.*
from (select clock_timestamp() as now) as clock
left join (
    select r.*
    from unnest($1::uuid[], $2::bigint[]) as asked (customer_id, session_id)
    cross join lateral (
        select id, customer_id, session_id, seat_ids, state, created_at, least(settled_at, expires_at) as ended_at
        from reservations
        where customer_id = asked.customer_id
        and session_id = asked.session_id
        and state in ('HELD', 'CONFIRMED')
        offset 0
    ) as r
    union all
    select r.id, r.customer_id, r.session_id, r.seat_ids, r.state, r.created_at, least(r.settled_at, r.expires_at)
    from reservations as r
    where r.customer_id = any($1::uuid[])
    and r.session_id = any($2::bigint[])
    and r.id >= $4
    and r.state in ('EXPIRED', 'CANCELLED')
    union all
    select r.id, null, null, null, r.state, r.created_at, r.expires_at
    from unnest($3::uuid[]) as owner (id)
    cross join lateral (
        select id, state, created_at, expires_at
        from reservations
        where id = owner.id
        offset 0
    ) as r
    where r.state = 'HELD'
    union all
    select null, null, id, null, 'PAUSED', null, null
    from sessions
    where id = any($2::bigint[])
    and paused_at is not null
) as claim on true
"""

PAUSED = "PAUSED"

WRITE_HOLDS = """
with inserted_reservations as (
    insert into reservations (
        id, customer_id, session_id, seat_ids, state, total, currency, created_at, expires_at,
        idempotency_key, request_fingerprint, reply, traceparent
    )
    select
        id, customer_id, session_id, seat_ids::bigint[], 'HELD', total, currency, created_at, expires_at,
        idempotency_key, request_fingerprint, reply, traceparent
    from unnest(
        $1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::bigint[], $6::text[],
        $7::timestamptz[], $8::timestamptz[], $9::text[], $10::bytea[], $11::text[], $12::text[]
    ) as held (
        id, customer_id, session_id, seat_ids, total, currency,
        created_at, expires_at, idempotency_key, request_fingerprint, reply, traceparent
    )
),
updated_seats as (
    update seats
    set state = 'HELD', reservation_id = taken.reservation_id, version = version + 1
    from unnest($13::bigint[], $14::uuid[]) as taken (seat_id, reservation_id)
    where seats.id = any($13)
    and seats.id = taken.seat_id
    and seats.state = 'AVAILABLE'
    returning 1
),
inserted_events as (
    insert into events (kind, session_id, reservation_id, seats, at, traceparent)
    select kind, session_id, reservation_id, seats, at, traceparent
    from unnest($15::text[], $16::bigint[], $17::uuid[], $18::jsonb[], $19::timestamptz[], $20::text[])
        with ordinality as new (kind, session_id, reservation_id, seats, at, traceparent, n)
    order by n
)
select count(*)
from updated_seats
"""


async def hold(
    connection: Connection,
    requests: Sequence[HoldRequest],
    rules: Rules,
    render: Render,
    note_sessions: Callable[[Mapping[int, LockedSeat]], None] | None = None,
) -> list[Held | Overdue | Refusal]:
    """One answer for each request, in their order. A later member finds the seats of an earlier one taken.

    `note_sessions` gets the locked seats.
    """
    customer_ids = sorted({request.customer_id for request in requests})
    customers = await lock_rows(connection, "customers", LOCK_CUSTOMERS, customer_ids)
    remembered, seats = await _lock_seats_to_hold(connection, requests)
    if note_sessions:
        note_sessions(seats)
    since = oldest_id(rules.patience, rules.hold_seconds, time.time())
    read = await _read_claims(connection, requests, seats, since)
    situation = Situation(
        read.now, rules, render, {row["id"] for row in customers}, remembered, seats, read.claims,
        read.overdue_holders, read.paused, read.ended,
    )  # fmt: skip
    answers = [situation.decide(request) for request in requests]
    if situation.accepted:
        await _write_holds(connection, situation.accepted)
    return answers


async def _lock_seats_to_hold(
    connection: Connection, requests: Sequence[HoldRequest]
) -> tuple[dict[UUID | tuple[UUID, str], Remembered], dict[int, LockedSeat]]:
    """The remembered holds, and the seats of the other requests by id."""
    wanted = [(seat_id, n) for n, request in enumerate(requests, 1) for seat_id in request.seat_ids]
    rows = await lock_rows(
        connection,
        "seats",
        LOCK_SEATS_TO_HOLD,
        [request.customer_id for request in requests],
        [request.idempotency_key for request in requests],
        [request.reservation_id for request in requests],
        *columns(wanted),
    )
    remembered = dict(_remembered(row) for row in rows if row["id"])
    return remembered, {row["seat_id"]: _locked_seat(row) for row in rows if row["seat_id"]}


def _remembered(row: asyncpg.Record) -> tuple[UUID | tuple[UUID, str], Remembered]:
    name = (row["customer_id"], row["idempotency_key"]) if row["customer_id"] else row["id"]
    return name, Remembered(row["id"], row["request_fingerprint"], row["reply"])


def _locked_seat(row: asyncpg.Record) -> LockedSeat:
    return LockedSeat(
        Seat(row["seat_id"], row["position"], row["placement"], row["price"]),
        row["session_id"],
        row["showtime"],
        row["currency"],
        SeatState(row["state"]),
        row["reservation_id"],
        row["version"],
    )


@dataclass(slots=True)
class _Read:
    """The time; by customer and session the claims and the ended holds; the seats' owners that are overdue holds; and
    the paused sessions.
    """

    now: datetime
    claims: dict[tuple[UUID, int], list[Claim]] = field(default_factory=dict)
    ended: dict[tuple[UUID, int], list[Ended]] = field(default_factory=dict)
    overdue_holders: set[UUID] = field(default_factory=set)
    paused: set[int] = field(default_factory=set)

    def note(self, row: asyncpg.Record) -> None:
        """Adds a row of READ_CLAIMS."""
        if row["state"] == PAUSED:
            self.paused.add(row["session_id"])
            return
        is_held, pair = row["state"] == State.HELD, (row["customer_id"], row["session_id"])
        is_overdue = is_held and row["ended_at"] <= self.now
        if row["customer_id"] is None:
            self.overdue_holders.update([row["id"]] if is_overdue else ())
        elif is_overdue or not is_held:
            self.ended.setdefault(pair, []).append(_ended(row))
        if row["customer_id"] is not None and row["state"] in (State.HELD, State.CONFIRMED):
            self.claims.setdefault(pair, []).append(Claim(row["id"], len(row["seat_ids"]), is_overdue))


async def _read_claims(
    connection: Connection, requests: Sequence[HoldRequest], seats: dict[int, LockedSeat], since: UUID
) -> _Read:
    pairs = {
        (request.customer_id, seats[seat_id].session_id)
        for request in requests
        for seat_id in request.seat_ids
        if seat_id in seats
    }
    rows = await connection.fetch(
        READ_CLAIMS,
        [customer_id for customer_id, _ in pairs],
        [session_id for _, session_id in pairs],
        list({seat.reservation_id for seat in seats.values() if seat.state is SeatState.HELD}),
        since,
    )
    read = _Read(rows[0]["now"])
    for row in rows if rows[0]["state"] else ():
        read.note(row)
    return read


def _ended(row: asyncpg.Record) -> Ended:
    return Ended(row["created_at"], row["ended_at"], row["state"] == State.CONFIRMED, tuple(row["seat_ids"]))


async def _write_holds(connection: Connection, accepted: Sequence[Accepted]) -> None:
    reservations = [
        (
            hold.reservation.id,
            hold.reservation.customer_id,
            hold.reservation.session_id,
            "{" + ",".join(map(str, hold.reservation.seat_ids)) + "}",
            hold.reservation.total,
            hold.reservation.currency,
            hold.reservation.created_at,
            hold.reservation.expires_at,
            hold.request.idempotency_key,
            hold.request.fingerprint(),
            hold.reply,
            tracing.traceparent_of(hold.reservation.id),
        )
        for hold in accepted
    ]
    taken = [(seat_id, hold.reservation.id) for hold in accepted for seat_id in hold.reservation.seat_ids]
    events = event_log.rows(map(_event, accepted))
    updated = await connection.fetchval(WRITE_HOLDS, *columns(reservations), *columns(taken), *events)
    expect_rows("seats held", updated, len(taken))


def _event(hold: Accepted) -> Event:
    changes = [SeatChange(row.seat.id, row.seat.position, SeatState.HELD, row.version + 1) for row in hold.seats]
    return Event(Kind.HELD, hold.reservation.session_id, hold.reservation.id, changes, hold.reservation.created_at)
