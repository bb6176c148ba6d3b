"""Idempotency keys over HTTP: one hold for one key, the same bytes again, and a key is free again after a refusal."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import httpx
import pytest

from service.database import Connection
from service.settings import Settings
from tests.stage.edge import Refused, ledger
from tests.stage.factories import Account, book, make_customer, make_customers, make_overdue, make_session, pay, release

REUSED = Refused(422, "idempotency-key-reused")
KEY = "first-try"

Book = Callable[[httpx.AsyncClient, Account, int], Awaitable[httpx.Response]]


async def by_path(client: httpx.AsyncClient, customer: Account, seat_id: int) -> httpx.Response:
    """One seat by its path, with the key."""
    headers = customer.headers | {"Idempotency-Key": KEY}
    return await client.post(f"/customer/book/{seat_id}", headers=headers)


async def by_body(client: httpx.AsyncClient, customer: Account, seat_id: int) -> httpx.Response:
    """One seat by the body, with the key."""
    return await book(client, customer, seat_id, key=KEY)


BOTH_WAYS = pytest.mark.parametrize(
    ("first", "second"),
    [(by_path, by_path), (by_path, by_body), (by_body, by_path), (by_body, by_body)],
    ids=lambda way: way.__name__,
)


async def test_parallel_requests_with_one_key_get_one_reservation(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids[:3]
    replies = await asyncio.gather(*(book(client, customer, *seats, key=KEY) for _ in range(50)))
    assert [reply.status_code for reply in replies] == [201] * 50
    assert len({reply.content for reply in replies}) == 1
    assert sum(reply.headers.get("Idempotency-Replayed") == "true" for reply in replies) == 49
    assert await sql.fetchval("select count(*) from reservations") == 1
    assert await sql.fetchval("select count(*) from events where kind = 'reservation.held'") == 1


@BOTH_WAYS
async def test_reused_key_with_another_seat_is_refused(
    first: Book, second: Book, client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids
    assert (await first(client, customer, seats[0])).status_code == 201
    before = await ledger(sql)
    assert REUSED.complaint(await second(client, customer, seats[1])) is None
    assert await ledger(sql) == before


@BOTH_WAYS
async def test_both_booking_routes_make_the_same_request(
    first: Book, second: Book, client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids
    made = await first(client, customer, seats[0])
    before = await ledger(sql)
    again = await second(client, customer, seats[0])
    assert (made.status_code, again.status_code) == (201, 201)
    assert again.content == made.content
    assert again.headers["content-type"] == made.headers["content-type"] == "application/json"
    assert "Idempotency-Replayed" not in made.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert await ledger(sql) == before


async def test_other_seats_are_another_request_another_order_is_not(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids
    made = await book(client, customer, seats[0], seats[1], key=KEY)
    assert (await book(client, customer, seats[1], seats[0], key=KEY)).content == made.content
    for others in ([seats[0]], [seats[0], seats[2]], [*seats[:3]], [999]):
        assert REUSED.complaint(await book(client, customer, *others, key=KEY)) is None


async def test_replay_is_the_same_after_payment_and_after_the_sale(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    session = await make_session(sql, settings)
    made = await book(client, customer, *session.seat_ids[:10], key=KEY)
    assert (await pay(client, customer, made.json()["reservationId"])).status_code == 200
    # The limit of ten seats is reached as well.
    assert (await book(client, customer, *session.seat_ids[:10], key=KEY)).content == made.content
    await sql.execute("update sessions set showtime = clock_timestamp()")
    again = await book(client, customer, *session.seat_ids[:10], key=KEY)
    assert (again.status_code, again.content) == (201, made.content)


async def test_a_replay_is_the_same_bytes_after_release(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids
    made = await book(client, customer, seats[0], key=KEY)
    assert (await release(client, customer, made.json()["reservationId"])).status_code == 200
    assert (await book(client, customer, seats[0], key=KEY)).content == made.content
    assert await sql.fetchval("select count(*) from seats where state <> 'AVAILABLE'") == 0


async def test_replay_is_the_same_after_its_seat_is_sold_again(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    late, quick = await make_customers(sql, settings, 2)
    seats = (await make_session(sql, settings)).seat_ids
    made = await book(client, late, seats[0], key=KEY)
    await make_overdue(sql, made.json()["reservationId"])
    assert (await book(client, late, seats[0], key=KEY)).content == made.content
    sold = await book(client, quick, seats[0])
    assert (await pay(client, quick, sold.json()["reservationId"])).status_code == 200
    again = await book(client, late, seats[0], key=KEY)
    assert (again.status_code, again.content, again.headers["Idempotency-Replayed"]) == (201, made.content, "true")


async def test_replay_has_a_new_time_header_and_the_first_server_time(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids
    made = await book(client, customer, seats[0], key=KEY)
    before = await sql.fetchval("select clock_timestamp()")
    again = await book(client, customer, seats[0], key=KEY)
    after = await sql.fetchval("select clock_timestamp()")
    assert datetime.fromisoformat(made.headers["Rowlock-Time"]) == datetime.fromisoformat(made.json()["serverTime"])
    assert before < datetime.fromisoformat(again.headers["Rowlock-Time"]).astimezone(UTC) < after
    assert datetime.fromisoformat(again.json()["serverTime"]) < before


async def test_a_key_is_free_again_after_a_refusal(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    first, second = await make_customers(sql, settings, 2)
    session = await make_session(sql, settings)
    taken = await book(client, first, session.seat_ids[0])
    refusals = [
        await book(client, second, session.seat_ids[0], key=KEY),
        await book(client, second, 999, key=KEY),
        await book(client, second, *session.seat_ids[:11], key=KEY),
    ]
    assert [reply.status_code for reply in refusals] == [409, 404, 422]
    await release(client, first, taken.json()["reservationId"])
    # The refused request itself, with its key: now it is granted.
    granted = await book(client, second, session.seat_ids[0], key=KEY)
    assert (granted.status_code, granted.headers.get("Idempotency-Replayed")) == (201, None)


async def test_the_same_key_of_two_customers_is_two_keys(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customers = await make_customers(sql, settings, 2)
    seats = (await make_session(sql, settings)).seat_ids
    made = [await by_path(client, customer, seat_id) for customer, seat_id in zip(customers, seats, strict=False)]
    again = [await by_path(client, customer, seat_id) for customer, seat_id in zip(customers, seats, strict=False)]
    assert [reply.status_code for reply in made + again] == [201] * 4
    assert [reply.content for reply in again] == [reply.content for reply in made]
    assert made[0].content != made[1].content


async def test_key_takes_255_visible_ascii_characters_with_case(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids
    visible = "".join(map(chr, range(0x21, 0x7F)))
    keys = ["a", "A", visible, "x" * 255]
    for key, seat_id in zip(keys, seats, strict=False):
        assert (await book(client, customer, seat_id, key=key)).headers.get("Idempotency-Replayed") is None
    rows = await sql.fetch("select idempotency_key from reservations order by id")
    assert [row["idempotency_key"] for row in rows] == keys


async def test_without_a_key_each_request_is_a_hold_of_its_own(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids
    first = await book(client, customer, seats[0])
    assert (await book(client, customer, seats[0])).status_code == 409
    assert (await book(client, customer, seats[1])).json()["reservationId"] != first.json()["reservationId"]
