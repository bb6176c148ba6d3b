"""A customer's history: the purchases, or the reservations of any state."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from service.database import Connection
from service.errors import NotFound
from service.ledger.settling import row_to_reservation
from service.reservation import Reservation, Seat, State


@dataclass(frozen=True, slots=True)
class Purchase:
    """A line of the history: the reservation, its session, its seats by position, and the time of payment."""

    reservation: Reservation
    movie: str
    room: str
    showtime: datetime
    seats: tuple[Seat, ...]
    paid_at: datetime | None


FIND_PURCHASE = """
select r.id, customer_id, session_id, seat_ids, state, total, r.currency, r.created_at, expires_at, settled_at,
    movie, room, showtime, paid_at
from reservations as r
join sessions on sessions.id = session_id
left join payments on reservation_id = r.id
where r.id = $1
and customer_id = $2
"""

LIST_HISTORY = """
select r.id, customer_id, session_id, seat_ids, state, total, r.currency, r.created_at, expires_at, settled_at,
    movie, room, showtime, paid_at
from reservations as r
join sessions on sessions.id = session_id
left join payments on reservation_id = r.id
where customer_id = $1
and r.id < $2
and ($3::text is null or state = $3)
order by r.id desc
limit $4
"""

LIST_SEATS = """
select id, position, placement, price
from seats
where id = any($1::bigint[])
"""


async def history(
    connection: Connection, customer_id: UUID, state: State | None, before: UUID, size: int
) -> list[Purchase]:
    """Up to `size` of the customer's reservations, the newest first, older than `before`; None is every state."""
    return await _purchases(
        connection, await connection.fetch(LIST_HISTORY, customer_id, before, state and state.value, size)
    )


async def find(connection: Connection, customer_id: UUID, reservation_id: UUID) -> Purchase:
    """The customer's reservation, in whatever state. Raises NotFound."""
    rows = await connection.fetch(FIND_PURCHASE, reservation_id, customer_id)
    if not rows:
        raise NotFound("reservation")
    return (await _purchases(connection, rows))[0]


async def _purchases(connection: Connection, rows: Sequence[asyncpg.Record]) -> list[Purchase]:
    """The lines of these rows, with their seats."""
    seat_ids = list({seat_id for row in rows for seat_id in row["seat_ids"]})
    seats = {row["id"]: Seat(*row) for row in await connection.fetch(LIST_SEATS, seat_ids)}
    return [
        Purchase(
            row_to_reservation(row),
            row["movie"],
            row["room"],
            row["showtime"],
            tuple(sorted((seats[seat_id] for seat_id in row["seat_ids"]), key=lambda seat: seat.position)),
            row["paid_at"],
        )
        for row in rows
    ]
