"""Holding seats: all or nothing, named refusals, the customer's limit, the end of the sale, the event."""

from datetime import UTC, datetime, timedelta

import httpx

from service.database import Connection
from service.settings import Settings
from tests.stage.factories import PRICE, book, make_customer, make_customers, make_overdue, make_session, pay, release


async def test_hold_answers_with_seats_total_and_deadline(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    session = await make_session(sql, settings)
    reply = await book(client, customer, session.seat_ids[1], session.seat_ids[0])
    assert reply.status_code == 201
    held = reply.json()
    assert [seat["placement"] for seat in held["seats"]] == ["A1", "A2"]
    assert (held["state"], held["total"], held["currency"]) == ("HELD", 2 * PRICE, "EUR")
    made, ends = (datetime.fromisoformat(held[name]) for name in ("serverTime", "expiresAt"))
    assert ends - made == timedelta(seconds=30)


async def test_overlapping_hold_names_every_taken_seat_and_takes_none(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    first, second = await make_customers(sql, settings, 2)
    seats = (await make_session(sql, settings)).seat_ids
    await book(client, first, seats[0], seats[2])
    reply = await book(client, second, *seats[:4])
    assert reply.status_code == 409
    assert reply.json()["type"] == "urn:rowlock:problem:seats-taken"
    assert reply.json()["seatIds"] == [seats[0], seats[2]]
    assert (await book(client, second, seats[1], seats[3])).status_code == 201


async def test_holder_of_taken_seats_gets_the_reservations(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    owner, other = await make_customers(sql, settings, 2)
    seats = (await make_session(sql, settings)).seat_ids
    held = (await book(client, owner, seats[0])).json()["reservationId"]
    paid = (await book(client, owner, seats[1])).json()["reservationId"]
    await pay(client, owner, paid)
    await book(client, other, seats[2])
    again = await book(client, owner, seats[0])
    assert (again.status_code, again.json()["type"]) == (409, "urn:rowlock:problem:seats-taken")
    assert again.json()["ownReservationIds"] == [held]
    assert held in again.json()["detail"]
    both = (await book(client, owner, *seats[:4])).json()
    assert (both["seatIds"], set(both["ownReservationIds"])) == (list(seats[:3]), {held, paid})
    assert "ownReservationIds" not in (await book(client, owner, seats[2])).json()
    refused = await book(client, other, *seats[:2])
    assert not {"ownReservationIds", held, paid} & {*refused.json(), *refused.text.split('"')}


async def test_the_next_buyer_gets_an_overdue_seat_without_any_expirer(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    first, second = await make_customers(sql, settings, 2)
    seats = (await make_session(sql, settings)).seat_ids
    held = (await book(client, first, seats[0], seats[1])).json()
    await make_overdue(sql, held["reservationId"])
    assert (await book(client, second, seats[1], seats[2])).status_code == 201
    assert await sql.fetchval("select state from reservations where id = $1", held["reservationId"]) == "EXPIRED"


async def test_own_overdue_holds_do_not_fill_the_limit(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids
    held = (await book(client, customer, *seats[:10])).json()
    refused = await book(client, customer, seats[10])
    assert refused.json()["type"] == "urn:rowlock:problem:seat-limit-reached"
    assert (refused.json()["seatsMax"], refused.json()["seatsClaimed"]) == (10, 10)
    await make_overdue(sql, held["reservationId"])
    assert (await book(client, customer, seats[10])).status_code == 201


async def test_paid_seats_count_towards_the_limit_released_ones_do_not(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids
    paid = (await book(client, customer, *seats[:6])).json()
    assert (await pay(client, customer, paid["reservationId"])).status_code == 200
    held = (await book(client, customer, *seats[6:10])).json()
    assert (await book(client, customer, seats[10])).status_code == 409
    assert (await release(client, customer, held["reservationId"])).status_code == 200
    assert (await book(client, customer, *seats[6:10])).status_code == 201


async def test_selling_ends_at_showtime(client: httpx.AsyncClient, sql: Connection, settings: Settings) -> None:
    customer = await make_customer(sql, settings)
    session = await make_session(sql, settings)
    await sql.execute("update sessions set showtime = clock_timestamp() where id = $1", session.id)
    reply = await book(client, customer, session.seat_ids[0])
    assert (reply.status_code, reply.json()["type"]) == (409, "urn:rowlock:problem:sale-closed")
    assert datetime.fromisoformat(reply.json()["showtime"]) <= datetime.now(UTC)
