"""The second write: ends the HELD state of reservations. See `service.ledger.booking` for the lock order.

Confirm, cancel and expire are one function with another target.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

import asyncpg

from service.database import Connection, columns, expect_rows, lock_rows
from service.errors import NotFound, Refusal
from service.events import log as event_log
from service.events.log import Event, Kind, SeatChange
from service.observability import tracing
from service.reservation import Reservation, Seat, State, seat_state_after
from service.reservation import settle as decide


@dataclass(frozen=True, slots=True)
class SettleRequest:
    """`target` is not HELD. Without a `customer_id` it is the house's request, which may settle every reservation."""

    reservation_id: UUID
    customer_id: UUID | None
    target: State


@dataclass(frozen=True, slots=True)
class Settled:
    """The reservation as it is now, its seats by position, and whether this request changed it."""

    reservation: Reservation
    seats: tuple[Seat, ...]
    changed: bool
    now: datetime


# By id: as an expression the state does not fit the index of all holds, which looks as good while it is small.
LOCK_HELD = """
select r.id
from unnest($1::uuid[], $2::uuid[]) as asked (id, customer_id)
join reservations as r using (id)
where r.id = any($1)
and r.state || '' = 'HELD'
and r.customer_id = coalesce(asked.customer_id, r.customer_id)
order by r.id
for no key update of r
"""

# A statement after the locks: the locking one does not evaluate a condition on the clock again after a wait.
READ_RESERVATIONS = """
select (select clock_timestamp()) as now, asked.customer_id as asker,
    r.id, r.customer_id, session_id, seat_ids, state, total, currency, created_at, expires_at, settled_at,
    traceparent
from unnest($1::uuid[], $2::uuid[]) as asked (id, customer_id)
join reservations as r using (id)
where r.customer_id = coalesce(asked.customer_id, r.customer_id)
"""

LOCK_SEATS = """
select id, position, placement, price, version
from seats
where id = any($1::bigint[])
order by id
for no key update
"""

READ_SEATS = """
select id, position, placement, price
from seats
where id = any($1::bigint[])
"""

WRITE_SETTLEMENTS = """
with updated_reservations as (
    update reservations
    set state = settled.state, settled_at = $1
    from unnest($2::uuid[], $3::text[]) as settled (id, state)
    where reservations.id = any($2)
    and reservations.id = settled.id
    and reservations.state = 'HELD'
    returning reservations.id, reservations.state, total, currency
),
inserted_payments as (
    insert into payments (reservation_id, amount, currency, paid_at)
    select id, total, currency, $1
    from updated_reservations
    where state = 'CONFIRMED'
),
updated_seats as (
    update seats
    set state = settled.seat_state,
        reservation_id = case when settled.seat_state = 'SOLD' then seats.reservation_id end,
        version = version + 1
    from unnest($4::bigint[], $5::uuid[], $6::text[]) as settled (seat_id, reservation_id, seat_state)
    where seats.id = any($4)
    and seats.id = settled.seat_id
    and seats.reservation_id = settled.reservation_id
    returning 1
),
inserted_events as (
    insert into events (kind, session_id, reservation_id, seats, at, traceparent)
    select kind, session_id, reservation_id, seats, at, traceparent
    from unnest($7::text[], $8::bigint[], $9::uuid[], $10::jsonb[], $11::timestamptz[], $12::text[])
        with ordinality as new (kind, session_id, reservation_id, seats, at, traceparent, n)
    order by n
)
select (select count(*) from updated_reservations) as reservations, (select count(*) from updated_seats) as seats
"""


async def settle(connection: Connection, requests: Sequence[SettleRequest]) -> list[Settled | Refusal]:
    """One answer for each request, in their order. The reservation of another customer is NotFound."""
    asked = columns([(request.reservation_id, request.customer_id) for request in requests])
    locked = {row["id"] for row in await lock_rows(connection, "reservations", LOCK_HELD, *asked)}
    return await settle_locked(connection, requests, locked)


@dataclass(slots=True)
class Docket:
    """The requested reservations, as they are after the decisions so far. `theirs` pairs each with its requester."""

    now: datetime | None
    theirs: set[tuple[UUID, UUID | None]]
    reservations: dict[UUID, Reservation]
    changed: dict[UUID, Reservation] = field(default_factory=dict)

    def decide(self, request: SettleRequest) -> Refusal | bool:
        """The refusal, or whether the request changes something. A change is recorded, so that later members see it."""
        id_ = request.reservation_id
        if self.now is None or (id_, request.customer_id) not in self.theirs:
            return NotFound("reservation")
        verdict = decide(self.reservations[id_], request.target, self.now)
        changes = verdict.state is not self.reservations[id_].state
        if changes:
            settled = replace(self.reservations[id_], state=verdict.state, settled_at=self.now)
            self.reservations[id_] = self.changed[id_] = settled
        return verdict.refusal or changes


async def settle_locked(
    connection: Connection, requests: Sequence[SettleRequest], locked: AbstractSet[UUID]
) -> list[Settled | Refusal]:
    """Decides on all, writes the changes and answers. Only `locked` reservations may change: the caller locked them."""
    docket = await _read_docket(connection, requests, locked)
    decisions = [docket.decide(request) for request in requests]
    seats: dict[int, Seat] = {}
    if docket.changed:
        seats |= await _write_settlements(connection, list(docket.changed.values()))
    granted = [
        (docket.reservations[request.reservation_id], decision)
        for request, decision in zip(requests, decisions, strict=True)
        if not isinstance(decision, Refusal)
    ]
    if unread := {seat_id for reservation, _ in granted for seat_id in reservation.seat_ids} - seats.keys():
        seats |= {row["id"]: _seat(row) for row in await connection.fetch(READ_SEATS, list(unread))}
    answers = iter([_settled(reservation, seats, docket.now, changed=changed) for reservation, changed in granted])
    return [decision if isinstance(decision, Refusal) else next(answers) for decision in decisions]


async def _read_docket(connection: Connection, requests: Sequence[SettleRequest], locked: AbstractSet[UUID]) -> Docket:
    asked = columns([(request.reservation_id, request.customer_id) for request in requests])
    rows = await connection.fetch(READ_RESERVATIONS, *asked)
    # A reservation that is held but not locked was committed after the locking statement: it did not see it.
    rows = [row for row in rows if row["state"] != State.HELD or row["id"] in locked]
    tracing.note_members({row["id"]: row["traceparent"] for row in rows})
    return Docket(
        now=rows[0]["now"] if rows else None,
        theirs={(row["id"], row["asker"]) for row in rows},
        reservations={row["id"]: row_to_reservation(row) for row in rows},
    )


async def _write_settlements(connection: Connection, settled: Sequence[Reservation]) -> dict[int, Seat]:
    """Locks the seats, writes reservations, payments and seats, appends the events; returns the seats by id."""
    owned = [
        (seat_id, reservation.id, seat_state_after(reservation.state).value)
        for reservation in settled
        for seat_id in reservation.seat_ids
    ]
    seat_ids = sorted(seat_id for seat_id, _, _ in owned)
    rows = {row["id"]: row for row in await lock_rows(connection, "seats", LOCK_SEATS, seat_ids)}
    states = [(reservation.id, reservation.state.value) for reservation in settled]
    now = settled[0].settled_at
    events = event_log.rows(_event(reservation, rows) for reservation in settled)
    counts = await connection.fetchrow(WRITE_SETTLEMENTS, now, *columns(states), *columns(owned), *events)
    assert counts is not None
    expect_rows("reservations settled", counts["reservations"], len(settled))
    expect_rows("seats settled", counts["seats"], len(owned))
    return {id_: _seat(row) for id_, row in rows.items()}


def _event(reservation: Reservation, rows: Mapping[int, asyncpg.Record]) -> Event:
    state = seat_state_after(reservation.state)
    changes = [
        SeatChange(seat_id, rows[seat_id]["position"], state, rows[seat_id]["version"] + 1)
        for seat_id in reservation.seat_ids
    ]
    assert reservation.settled_at is not None
    return Event(Kind.of(reservation.state), reservation.session_id, reservation.id, changes, reservation.settled_at)


def _settled(reservation: Reservation, seats: Mapping[int, Seat], now: datetime | None, *, changed: bool) -> Settled:
    assert now is not None
    by_position = sorted((seats[seat_id] for seat_id in reservation.seat_ids), key=lambda seat: seat.position)
    return Settled(reservation, tuple(by_position), changed, now)


def _seat(row: asyncpg.Record) -> Seat:
    return Seat(row["id"], row["position"], row["placement"], row["price"])


def row_to_reservation(row: asyncpg.Record) -> Reservation:
    """The reservation in a row with the columns of `reservations`."""
    return Reservation(
        id=row["id"],
        customer_id=row["customer_id"],
        session_id=row["session_id"],
        seat_ids=tuple(row["seat_ids"]),
        state=State(row["state"]),
        total=row["total"],
        currency=row["currency"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        settled_at=row["settled_at"],
    )
