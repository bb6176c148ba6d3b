"""What the OpenAPI document says of holds, payments and releases is what they really answer."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import pytest

from service.database import Connection
from service.settings import Settings
from tests.stage.document import expected, named, same, told
from tests.stage.factories import Account, book, make_customers, make_manager, make_overdue, make_session, pay, release


@dataclass(frozen=True, slots=True)
class Shop:
    """Two customers, and two sessions whose seats are 1 to 16 and 17 to 32."""

    client: httpx.AsyncClient
    sql: Connection
    customer: Account
    other: Account

    async def held(self, *seat_ids: int) -> str:
        """The reservation of a new hold."""
        reply = await book(self.client, self.customer, *seat_ids)
        assert reply.status_code == 201, reply.text
        return str(reply.json()["reservationId"])


@pytest.fixture
async def shop(client: httpx.AsyncClient, sql: Connection, settings: Settings) -> Shop:
    """The API with something to sell."""
    customer, other = await make_customers(sql, settings, 2)
    for _ in range(2):
        await make_session(sql, settings)
    return Shop(client, sql, customer, other)


async def test_replies_of_pay_and_release_are_those_of_the_document(shop: Shop) -> None:
    for operation_id, settle, status in (("holdSeat", None, 201), ("pay", pay, 200), ("release", release, 200)):
        answer = named(operation_id).described["responses"][str(status)]
        if settle:
            reply = await settle(shop.client, shop.customer, await shop.held(17 if settle is pay else 18))
        else:
            reply = await shop.client.post("/customer/book/19", headers=shop.customer.headers)
        example, found = answer["content"]["application/json"]["example"], reply.json()
        assert reply.status_code == status
        assert (list(found), found["state"]) == (list(example), example["state"])
        assert {name: found[name] is None for name in found} == {name: example[name] is None for name in example}
        assert "rowlock-time" in reply.headers
        assert "Rowlock-Time" in answer["headers"]


async def test_refusals_of_holds_are_those_of_the_document(shop: Shop) -> None:
    holds = named("holdSeats")
    await book(shop.client, shop.other, 17, 18)
    taken = await book(shop.client, shop.customer, 17, 18)
    assert told(taken) == expected(409, holds.example(409, "seats-taken"))
    one = await shop.client.post("/customer/book/17", headers=shop.customer.headers)
    assert told(one) == expected(409, named("holdSeat").example(409, "seats-taken"))
    own = await book(shop.client, shop.other, 17, 18)
    assert same(told(own), expected(409, holds.example(409, "seats-taken-2")))
    several = await book(shop.client, shop.customer, 1, 19)
    assert told(several) == expected(422, holds.example(422, "seats-of-several-sessions"))
    await book(shop.client, shop.customer, *range(1, 10), key="one")
    reused = await book(shop.client, shop.customer, 10, key="one")
    assert told(reused) == expected(422, holds.example(422, "idempotency-key-reused"))
    limit = await book(shop.client, shop.customer, 10, 11)
    assert told(limit) == expected(409, holds.example(409, "seat-limit-reached"))


async def test_refusals_of_ended_sales_are_those_of_the_document(shop: Shop) -> None:
    await shop.sql.execute("update sessions set showtime = $1", datetime.now(UTC) - timedelta(hours=1))
    closed = await book(shop.client, shop.customer, 1)
    assert same(told(closed), expected(409, named("holdSeats").example(409, "sale-closed")))


async def test_refusals_of_settling_are_those_of_the_document(shop: Shop) -> None:
    paid, released, overdue = [await shop.held(seat_id) for seat_id in (1, 2, 3)]
    await pay(shop.client, shop.customer, paid)
    await release(shop.client, shop.customer, released)
    await make_overdue(shop.sql, UUID(overdue))
    for operation_id, settle, reservation_id, name in (
        ("release", release, paid, "reservation-paid"),
        ("pay", pay, released, "reservation-cancelled"),
        ("pay", pay, overdue, "hold-expired"),
        ("release", release, overdue, "hold-expired"),
    ):
        reply = await settle(shop.client, shop.customer, reservation_id)
        assert same(told(reply), expected(409, named(operation_id).example(409, name))), name


async def test_refusals_of_paused_sales_and_rooms_are_documented(shop: Shop, settings: Settings) -> None:
    manager = await make_manager(shop.sql, settings)
    await shop.client.post("/manager/session/1/pause", headers=manager.headers)
    paused = await book(shop.client, shop.customer, 1)
    assert told(paused) == expected(409, named("holdSeats").example(409, "sales-paused"))
    create = named("createSession")
    await shop.sql.execute("update sessions set room = 'Room 1', showtime = '2030-06-01T18:00:00Z'")
    occupied = await shop.client.post(create.path, json=create.body, headers=manager.headers)
    assert told(occupied) == expected(409, create.example(409, "room-occupied"))
