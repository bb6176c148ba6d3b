"""The log: one row for each change of a reservation and each new session, in the transaction of the change."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

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
