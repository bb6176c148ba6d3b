"""Sessions: made with all their seats in order, on the list with right counts until showtime, and their live map."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from service.database import Connection
from service.ledger.expiring import settle_overdue
from service.settings import Settings
from tests.stage.edge import invalid, ledger
from tests.stage.factories import (
    PRICE,
    Account,
    OnSale,
    book,
    make_customer,
    make_customers,
    make_manager,
    make_overdue,
    make_session,
    pay,
    release,
)
from tests.stage.waiting import until

Counts = tuple[int, int, int]
"""Available, held, sold."""


def body_of(seat_count: int, **changes: Any) -> dict[str, Any]:
    """A session that can be made."""
    placements = [f"{number:06}" for number in range(seat_count, 0, -1)]
    return {
        "movie": "Metropolis",
        "room": "Room 1",
        "showtime": "2100-06-01T18:00:00Z",
        "duration": 153,
        "price": PRICE,
        "currency": "EUR",
        "placements": placements,
        **changes,
    }


@pytest.mark.parametrize("seat_count", [16, 100_000])
async def test_a_session_has_its_seats_in_the_order_of_the_placements(
    seat_count: int, client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    manager = await make_manager(sql, settings)
    body = body_of(seat_count)
    reply = await client.post("/manager/create", json=body, headers=manager.headers, timeout=60)
    assert reply.status_code == 201
    made = reply.json()
    assert (made["seatCount"], made["price"], made["currency"]) == (seat_count, PRICE, "EUR")
    assert [seat["placement"] for seat in made["seats"]] == body["placements"]
    rows = await sql.fetch("select id, position, placement, price, state, session_id from seats order by position")
    assert [row["position"] for row in rows] == list(range(seat_count))
    assert [(row["id"], row["placement"]) for row in rows] == [
        (seat["seatId"], seat["placement"]) for seat in made["seats"]
    ]
    assert {(row["price"], row["state"], row["session_id"]) for row in rows} == {(PRICE, "AVAILABLE", 1)}
    shown = (await client.get("/customer/session/1")).json()
    assert [(seat["seatId"], seat["placement"], seat["price"]) for seat in shown["seats"]] == [
        (seat["seatId"], seat["placement"], PRICE) for seat in made["seats"]
    ]
    row = await sql.fetchrow("select kind, session_id, reservation_id, seats from events")
    assert tuple(row or ()) == ("session.created", 1, None, "[]")


async def test_a_session_is_stored_as_requested_with_utc_showtime(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    manager = await make_manager(sql, settings)
    wanted = {"showtime": "2100-06-01T18:00:00.5-07:00", "currency": "JPY", "price": 0, "duration": 1_440}
    made = (await client.post("/manager/create", json=body_of(16, **wanted), headers=manager.headers)).json()
    assert (made["showtime"], made["currency"], made["price"]) == ("2100-06-02T01:00:00.500000Z", "JPY", 0)
    (listed,) = (await client.get("/customer/list-sessions")).json()["sessions"]
    assert {name: listed[name] for name in ("showtime", "currency", "price", "duration", "movie", "room")} == {
        name: made[name] for name in ("showtime", "currency", "price", "duration", "movie", "room")
    }
    assert await sql.fetchval("select created_by from sessions") == manager.id


async def test_a_showtime_is_compared_with_the_clock_of_postgresql(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    manager = await make_manager(sql, settings)
    now: datetime = await sql.fetchval("select clock_timestamp()")
    before = await ledger(sql)
    late = body_of(16, showtime=now.isoformat())
    reply = await client.post("/manager/create", json=late, headers=manager.headers)
    assert invalid("showtime", "must be in the future").complaint(reply) is None
    assert await ledger(sql) == before
    soon = body_of(16, showtime=(now + timedelta(minutes=1)).isoformat())
    assert (await client.post("/manager/create", json=soon, headers=manager.headers)).status_code == 201


async def listed_counts(client: httpx.AsyncClient) -> Counts:
    """Of the only session."""
    (session,) = (await client.get("/customer/list-sessions")).json()["sessions"]
    return session["seats"]["available"], session["seats"]["held"], session["seats"]["sold"]


async def mapped_counts(client: httpx.AsyncClient, session: OnSale) -> Counts:
    """By the map, which remembers nothing."""
    seats = (await client.get(f"/customer/session/{session.id}")).json()["seats"]
    states = [seat["state"] for seat in seats]
    return states.count("AVAILABLE"), states.count("HELD"), states.count("SOLD")


async def assert_counts(client: httpx.AsyncClient, session: OnSale, counts: Counts) -> None:
    """In the map at once, and in the list as soon as it counts again."""
    assert await mapped_counts(client, session) == counts

    async def is_listed() -> bool:
        return await listed_counts(client) == counts

    await until(is_listed, f"{counts} in the list")


async def test_counts_and_map_follow_hold_payment_release_and_expiry(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    session = await make_session(sql, settings)
    seats = session.seat_ids
    await assert_counts(client, session, (16, 0, 0))
    paid = (await book(client, customer, *seats[:3])).json()["reservationId"]
    released = (await book(client, customer, *seats[3:5])).json()["reservationId"]
    expired = (await book(client, customer, seats[5])).json()["reservationId"]
    await assert_counts(client, session, (10, 6, 0))
    await pay(client, customer, paid)
    await assert_counts(client, session, (10, 3, 3))
    await release(client, customer, released)
    await assert_counts(client, session, (12, 1, 3))
    await make_overdue(sql, expired)
    async with sql.transaction():
        assert len((await settle_overdue(sql, 10)).reservations) == 1
    await assert_counts(client, session, (13, 0, 3))


async def test_the_map_shows_each_seat_with_its_own_state(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    one, other = await make_customers(sql, settings, 2)
    session = await make_session(sql, settings)
    seats = session.seat_ids
    sold = await book(client, one, seats[4], seats[2])
    await pay(client, one, sold.json()["reservationId"])
    await book(client, other, seats[9])
    shown = (await client.get(f"/customer/session/{session.id}")).json()
    expected = {seats[2]: "SOLD", seats[4]: "SOLD", seats[9]: "HELD"}
    assert {seat["seatId"]: seat["state"] for seat in shown["seats"]} == dict.fromkeys(seats, "AVAILABLE") | expected
    assert [seat["placement"] for seat in shown["seats"]] == [f"A{number}" for number in range(1, 17)]
    assert (shown["sessionId"], shown["currency"], shown["source"]) == (session.id, "EUR", "postgresql")
    assert abs(datetime.fromisoformat(shown["asOf"]) - await sql.fetchval("select now()")) < timedelta(seconds=10)


async def start(sql: Connection, session: OnSale, ago: timedelta = timedelta(0)) -> None:
    """Its showtime is now, or was some time ago."""
    await sql.execute("update sessions set showtime = clock_timestamp() - $2::interval where id = $1", session.id, ago)


async def test_at_showtime_a_session_leaves_the_list_and_keeps_its_map(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    first, second = await make_session(sql, settings), await make_session(sql, settings)
    await start(sql, first)
    listed = (await client.get("/customer/list-sessions")).json()
    assert [session["sessionId"] for session in listed["sessions"]] == [second.id]
    assert await mapped_counts(client, first) == (16, 0, 0)


Settle = Callable[[httpx.AsyncClient, Account, str], Awaitable[httpx.Response]]


@pytest.mark.parametrize(("settle", "counts"), [(pay, (15, 0, 1)), (release, (16, 0, 0))])
async def test_a_hold_can_be_paid_and_released_after_showtime(
    settle: Settle, counts: Counts, client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    session = await make_session(sql, settings)
    held = (await book(client, customer, session.seat_ids[0])).json()["reservationId"]
    await start(sql, session)
    assert (await settle(client, customer, held)).status_code == 200
    assert await mapped_counts(client, session) == counts


async def test_the_list_is_in_the_order_of_showtimes(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    now = datetime.now(UTC)
    made = [await make_session(sql, settings, showtime=now + timedelta(days=days)) for days in (3, 1, 2)]
    listed = (await client.get("/customer/list-sessions")).json()
    assert [session["sessionId"] for session in listed["sessions"]] == [made[n].id for n in (1, 2, 0)]
    assert listed["next"] is None


async def test_a_token_whose_account_is_gone_makes_no_session(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    manager = await make_manager(sql, settings)
    await sql.execute("delete from accounts where id = $1", manager.id)
    reply = await client.post("/manager/create", json=body_of(16), headers=manager.headers)
    assert (reply.status_code, reply.json()["type"]) == (401, "urn:rowlock:problem:unauthenticated")
