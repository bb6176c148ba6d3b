"""A customer's history: the purchases, or the reservations of any state."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from service.database import snapshot
from service.errors import BusyReason, NotFound
from service.ledger.settling import row_to_reservation
from service.reservation import Reservation, Seat, State
from service.single_flight import Turns


@dataclass(frozen=True, slots=True)
class Purchase:
    """A line of the history: the reservation, its session, its seats by position, and the time of payment."""

    reservation: Reservation
    movie: str
    room: str
    showtime: datetime
    seats: tuple[Seat, ...]
    paid_at: datetime | None


# A statement of its own: with the state as an argument a generic plan could not use the index of purchases.
LIST_PURCHASES = """
select r.id, customer_id, session_id, seat_ids, state, total, r.currency, r.created_at, expires_at, settled_at,
    movie, room, showtime, paid_at
from reservations as r
join sessions on sessions.id = session_id
left join payments on reservation_id = r.id
where customer_id = $1
and r.id < $2
and state = 'CONFIRMED'
order by r.id desc
limit $3
"""

LIST_ATTEMPTS = """
select r.id, customer_id, session_id, seat_ids, state, total, r.currency, r.created_at, expires_at, settled_at,
    movie, room, showtime, paid_at
from reservations as r
join sessions on sessions.id = session_id
left join payments on reservation_id = r.id
where customer_id = $1
and r.id < $2
order by r.id desc
limit $3
"""

# It may read past all other reservations of the customer.
LIST_OF_STATE = """
select r.id, customer_id, session_id, seat_ids, state, total, r.currency, r.created_at, expires_at, settled_at,
    movie, room, showtime, paid_at
from reservations as r
join sessions on sessions.id = session_id
left join payments on reservation_id = r.id
where customer_id = $1
and r.id < $2
and state = $4
order by r.id desc
limit $3
"""

FIND_PURCHASE = """
select r.id, customer_id, session_id, seat_ids, state, total, r.currency, r.created_at, expires_at, settled_at,
    movie, room, showtime, paid_at
from reservations as r
join sessions on sessions.id = session_id
left join payments on reservation_id = r.id
where r.id = $1
and customer_id = $2
"""

LIST_SEATS = """
select id, position, placement, price
from seats
where id = any($1::bigint[])
"""


class Histories:
    """One per process. At most `searches_max` reads at the same time look for one state among many reservations, and
    one waits at most `wait_seconds` for its turn: they must not take the connections that holds need.
    """

    def __init__(self, engine: AsyncEngine, searches_max: int, wait_seconds: float) -> None:
        self._engine = engine
        self._turns = Turns(searches_max, wait_seconds)

    async def page(self, customer_id: UUID, state: State | None, before: UUID, size: int) -> list[Purchase]:
        """Up to `size` of the customer's reservations, the newest first, older than `before`; None is every state.

        Raises Busy, DatabaseAway.
        """
        if state is None:
            return await self._read(LIST_ATTEMPTS, customer_id, before, size)
        if state is State.CONFIRMED:
            return await self._read(LIST_PURCHASES, customer_id, before, size)
        async with self._turns.take(BusyReason.HISTORY_READ):
            return await self._read(LIST_OF_STATE, customer_id, before, size, state.value)

    async def find(self, customer_id: UUID, reservation_id: UUID) -> Purchase:
        """The customer's reservation, in whatever state. Raises NotFound, Busy, DatabaseAway."""
        found = await self._read(FIND_PURCHASE, reservation_id, customer_id)
        if not found:
            raise NotFound("reservation")
        return found[0]

    async def _read(self, statement: str, *arguments: object) -> list[Purchase]:
        async with snapshot(self._engine) as connection:
            rows = await connection.fetch(statement, *arguments)
            seat_ids = list({seat_id for row in rows for seat_id in row["seat_ids"]})
            seats = {row["id"]: Seat(*row) for row in await connection.fetch(LIST_SEATS, seat_ids)}
        return [_purchase(row, seats) for row in rows]


def _purchase(row: asyncpg.Record, seats: Mapping[int, Seat]) -> Purchase:
    return Purchase(
        row_to_reservation(row),
        row["movie"],
        row["room"],
        row["showtime"],
        tuple(sorted((seats[seat_id] for seat_id in row["seat_ids"]), key=lambda seat: seat.position)),
        row["paid_at"],
    )
