"""A customer's history: the purchases, newest first, or the reservations of one state."""

from collections.abc import Awaitable, Callable
from datetime import datetime

import httpx
import pytest

from service.database import Connection
from service.settings import Settings
from tests.stage.factories import PRICE, book, make_customer, make_overdue, make_session, pay, release
from tests.stage.reservations import STATES, make_history


@pytest.mark.parametrize("state", ["", "CONFIRMED", "HELD", "EXPIRED", "CANCELLED", "ALL"])
async def test_history_lists_purchases_or_a_requested_state(
    state: str, client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    history = await make_history(client, sql, settings)
    query = f"?state={state}" if state else ""
    page = (await client.get(f"/customer/list-history{query}", headers=history.customer.headers)).json()
    wanted = STATES if state == "ALL" else (state or "CONFIRMED",)
    assert [(line["reservationId"], line["state"]) for line in page["reservations"]] == [
        (id_, state) for id_, state in reversed(history.made) if state in wanted
    ]
    assert page["next"] is None


async def test_page_of_one_state_is_full_up_to_the_limit(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    history = await make_history(client, sql, settings)
    paid = [id_ for id_, state in reversed(history.made) if state == "CONFIRMED"]
    headers = history.customer.headers
    first = (await client.get("/customer/list-history?limit=2", headers=headers)).json()
    assert [line["reservationId"] for line in first["reservations"]] == paid[:2]
    # Newer ones do not move what comes after the cursor.
    await book(client, history.customer, history.session.seat_ids[-1])
    parameters = {"limit": "2", "cursor": first["next"]}
    second = (await client.get("/customer/list-history", params=parameters, headers=headers)).json()
    assert [line["reservationId"] for line in second["reservations"]] == paid[2:]
    assert second["next"] is None


async def test_a_line_of_the_history_tells_what_when_and_for_how_much(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    session = await make_session(sql, settings)
    held = (await book(client, customer, session.seat_ids[2], session.seat_ids[0])).json()
    paid = (await pay(client, customer, held["reservationId"])).json()
    (line,) = (await client.get("/customer/list-history", headers=customer.headers)).json()["reservations"]
    assert line["seats"] == held["seats"]
    assert [seat["placement"] for seat in line["seats"]] == ["A1", "A3"]
    assert (line["movie"], line["room"], line["sessionId"]) == ("Metropolis", "Room 1", session.id)
    assert (line["total"], line["currency"], line["state"]) == (2 * PRICE, "EUR", "CONFIRMED")
    assert line["createdAt"] == held["serverTime"]
    assert line["expiresAt"] == held["expiresAt"]
    assert line["settledAt"] == line["paidAt"] == paid["settledAt"]
    showtime = await sql.fetchval("select showtime from sessions")
    assert datetime.fromisoformat(line["showtime"]) == showtime


@pytest.mark.parametrize("state", STATES)
async def test_owner_sees_one_reservation_as_the_history_does(
    state: str, client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    history = await make_history(client, sql, settings)
    headers = history.customer.headers
    page = (await client.get("/customer/list-history?state=ALL", headers=headers)).json()
    line = next(line for line in page["reservations"] if line["state"] == state)
    path = f"/customer/reservation/{line['reservationId']}"
    seen = await client.get(path, headers=headers)
    assert (seen.status_code, seen.json()) == (200, line)
    stranger = await make_customer(sql, settings)
    assert (await client.get(path, headers=stranger.headers)).status_code == 404
    unknown = await client.get(f"/customer/reservation/{history.session.id:032x}", headers=headers)
    assert (unknown.status_code, unknown.json()["what"]) == (404, "reservation")


@pytest.mark.parametrize("settle", [pay, release])
async def test_settled_reply_has_the_time_of_the_hold(
    settle: Callable[..., Awaitable[httpx.Response]], client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    held = (await book(client, customer, (await make_session(sql, settings)).seat_ids[0])).json()
    settled = (await settle(client, customer, held["reservationId"])).json()
    assert settled["createdAt"] == settled["serverTime"] == held["serverTime"]
    assert settled["settledAt"] > settled["createdAt"]


async def test_only_what_is_paid_has_a_time_of_payment(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    history = await make_history(client, sql, settings)
    page = await client.get("/customer/list-history?state=ALL", headers=history.customer.headers)
    for line in page.json()["reservations"]:
        assert (line["paidAt"] is not None) is (line["state"] == "CONFIRMED")
        assert (line["settledAt"] is None) is (line["state"] == "HELD")


async def test_a_history_keeps_the_price_of_the_time_of_the_hold(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    session = await make_session(sql, settings)
    held = (await book(client, customer, session.seat_ids[0])).json()
    await make_overdue(sql, held["reservationId"])
    (line,) = (await client.get("/customer/list-history?state=HELD", headers=customer.headers)).json()["reservations"]
    assert (line["total"], line["seats"][0]["price"]) == (PRICE, PRICE)
