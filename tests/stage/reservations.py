"""A customer who has tried everything: reservations that are held, paid, released and expired."""

from dataclasses import dataclass
from uuid import UUID

import httpx

from service.database import Connection
from service.ledger.expiring import settle_overdue
from service.settings import Settings
from tests.stage.factories import Account, OnSale, book, make_customer, make_overdue, make_session, pay, release

STATES = ("CONFIRMED", "EXPIRED", "CANCELLED", "CONFIRMED", "HELD", "CANCELLED", "EXPIRED", "CONFIRMED")


@dataclass(frozen=True, slots=True)
class History:
    """`made` are the reservations as (id, state), the oldest first."""

    customer: Account
    session: OnSale
    made: list[tuple[str, str]]


async def make_history(client: httpx.AsyncClient, sql: Connection, settings: Settings) -> History:
    """One reservation of one seat for each of STATES, over HTTP."""
    customer = await make_customer(sql, settings)
    session = await make_session(sql, settings)
    made = []
    for seat_id, state in zip(session.seat_ids, STATES, strict=False):
        reservation_id = (await book(client, customer, seat_id)).json()["reservationId"]
        await _bring(client, sql, customer, reservation_id, state)
        made.append((reservation_id, state))
    return History(customer, session, made)


async def _bring(client: httpx.AsyncClient, sql: Connection, customer: Account, id_: str, state: str) -> None:
    if state == "CONFIRMED":
        assert (await pay(client, customer, id_)).status_code == 200
    elif state == "CANCELLED":
        assert (await release(client, customer, id_)).status_code == 200
    elif state == "EXPIRED":
        await make_overdue(sql, UUID(id_))
        async with sql.transaction():
            assert len((await settle_overdue(sql, 10)).reservations) == 1
