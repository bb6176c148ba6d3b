"""Reads the ledger itself at the end of a campaign: log, tables, and what the self-audit says."""

from datetime import datetime

import orjson

from load.campaign.history import Change, Event, History, Reservation, Seat
from service.database import Connection

READ_EVENTS = """
select id, number, kind, session_id, reservation_id, at, seats::text as seats
from events
order by id
"""
READ_RESERVATIONS = """
select r.id, customer_id, session_id, seat_ids, state, total, created_at, expires_at, settled_at,
    idempotency_key, reply, amount
from reservations as r
left join payments as p on p.reservation_id = r.id
"""
READ_SEATS = """
select id, session_id, position, price, state, version, reservation_id
from seats
"""


async def read_ledger(connection: Connection, history: History) -> None:
    """Adds the log, the reservations and the seats to the history."""
    for row in await connection.fetch(READ_EVENTS):
        changes = [Change(seat["seatId"], seat["state"], seat["version"]) for seat in orjson.loads(row["seats"])]
        id_ = row["reservation_id"] and str(row["reservation_id"])
        history.events.append(
            Event(
                row["id"], row["kind"], row["session_id"], id_, _microseconds(row["at"]), tuple(changes), row["number"]
            )
        )
    for row in await connection.fetch(READ_RESERVATIONS):
        history.reservations[str(row["id"])] = Reservation(
            id=str(row["id"]),
            customer=str(row["customer_id"]),
            session=row["session_id"],
            seats=tuple(row["seat_ids"]),
            state=row["state"],
            total=row["total"],
            created_at=_microseconds(row["created_at"]),
            expires_at=_microseconds(row["expires_at"]),
            settled_at=row["settled_at"] and _microseconds(row["settled_at"]),
            key=row["idempotency_key"],
            reply=row["reply"],
            paid=row["amount"],
        )
    for row in await connection.fetch(READ_SEATS):
        owner = row["reservation_id"] and str(row["reservation_id"])
        history.seats[row["id"]] = Seat(
            row["id"], row["session_id"], row["position"], row["price"], row["state"], row["version"], owner
        )


def _microseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond
