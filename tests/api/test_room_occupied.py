"""What a manager or a customer creates twice by accident: refused, or answered as the first time."""

import asyncio
from collections import Counter
from typing import Any

import httpx
import pytest

from service.database import Connection
from service.settings import Settings
from tests.stage.edge import Refused
from tests.stage.factories import Account, make_manager

KEY = {"Idempotency-Key": "the-first-showing"}
OCCUPIED = Refused(409, "room-occupied")
REUSED = Refused(422, "idempotency-key-reused")
BODY: dict[str, Any] = {
    "movie": "Metropolis",
    "room": "Room 1",
    "showtime": "2100-06-01T18:00:00Z",
    "duration": 60,
    "price": 1250,
    "currency": "EUR",
    "placements": [f"A{number}" for number in range(16, 0, -1)],
}
SIGN_UP = {"email": "ada@example.com", "password": "correct horse battery", "name": "Ada"}


async def create(
    client: httpx.AsyncClient, manager: Account, headers: dict[str, str] | None = None, **changes: Any
) -> httpx.Response:
    """A session."""
    return await client.post("/manager/create", json=BODY | changes, headers=manager.headers | (headers or {}))


async def test_a_repeated_creation_gets_the_first_answer(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    manager = await make_manager(sql, settings)
    first, again = await create(client, manager, KEY), await create(client, manager, KEY)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.content == again.content
    assert ("idempotency-replayed" in first.headers, again.headers["idempotency-replayed"]) == (False, "true")
    assert await sql.fetchval("select count(*) from sessions") == 1


@pytest.mark.parametrize(
    "change",
    [
        {"movie": "Sunrise"}, {"room": "Room 2"}, {"showtime": "2100-06-01T18:00:01Z"}, {"duration": 61},
        {"price": 1251}, {"currency": "CHF"}, {"placements": BODY["placements"][::-1]},
    ],
)  # fmt: skip
async def test_a_key_belongs_to_one_content(
    client: httpx.AsyncClient, sql: Connection, settings: Settings, change: dict[str, Any]
) -> None:
    manager = await make_manager(sql, settings)
    await create(client, manager, KEY)
    assert REUSED.complaint(await create(client, manager, KEY, **change)) is None


async def test_a_key_belongs_to_one_manager(client: httpx.AsyncClient, sql: Connection, settings: Settings) -> None:
    for room in ("Room 1", "Room 2"):
        reply = await create(client, await make_manager(sql, settings), KEY, room=room)
        assert (reply.status_code, "idempotency-replayed" in reply.headers) == (201, False)


async def test_ten_creations_with_one_key_at_once_make_one_session(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    manager = await make_manager(sql, settings)
    replies = await asyncio.gather(*(create(client, manager, KEY, allowOverlap=True) for _ in range(10)))
    assert {reply.content for reply in replies} == {replies[0].content}
    assert await sql.fetchval("select count(*) from sessions") == 1


TIMES = {
    ("17:00", 60): True, ("17:00", 61): False, ("18:00", 60): False, ("18:59", 1): False, ("19:00", 60): True,
    ("18:30", 1): False, ("00:00", 1_440): False, ("00:00", 1_080): True,
}  # fmt: skip
"""Begin and minutes of another session, and whether the room is free then."""


@pytest.mark.parametrize("time", TIMES)
async def test_a_room_has_one_session_at_a_time(
    client: httpx.AsyncClient, sql: Connection, settings: Settings, time: tuple[str, int]
) -> None:
    manager = await make_manager(sql, settings)
    first = (await create(client, manager)).json()
    at: dict[str, Any] = {"showtime": f"2100-06-01T{time[0]}:00Z", "duration": time[1]}
    reply = await create(client, manager, room="rOOM 1", **at)
    assert (reply.status_code == 201) is TIMES[time]
    if not TIMES[time]:
        assert OCCUPIED.complaint(reply) is None
        assert (reply.json()["sessionId"], reply.json()["showtime"]) == (first["sessionId"], first["showtime"])
    assert (await create(client, manager, room="Room 2", **at)).status_code == 201
    assert (await create(client, manager, allowOverlap=True, **at)).status_code == 201


async def test_ten_creations_in_a_room_at_once_make_one_session(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    manager = await make_manager(sql, settings)
    replies = await asyncio.gather(*(create(client, manager, movie=f"Part {n}") for n in range(10)))
    assert Counter(reply.status_code for reply in replies) == {201: 1, 409: 9}
    assert await sql.fetchval("select count(*) from sessions") == 1


async def test_a_repeated_sign_up_gets_a_token_again(client: httpx.AsyncClient) -> None:
    first = await client.post("/sign-up", json=SIGN_UP, headers=KEY)
    again = await client.post("/sign-up", json=SIGN_UP, headers=KEY)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json()["accountId"] == first.json()["accountId"]
    assert ("idempotency-replayed" in first.headers, again.headers["idempotency-replayed"]) == (False, "true")


@pytest.mark.parametrize(
    ("headers", "change", "refused"),
    [
        ({}, {}, Refused(409, "address-in-use")),
        ({"Idempotency-Key": "another"}, {}, Refused(409, "address-in-use")),
        (KEY, {"password": "another battery"}, REUSED),
        (KEY, {"name": "Grace"}, REUSED),
    ],
)
async def test_another_sign_up_of_the_address_gets_no_token(
    client: httpx.AsyncClient, headers: dict[str, str], change: dict[str, str], refused: Refused
) -> None:
    assert (await client.post("/sign-up", json=SIGN_UP, headers=KEY)).status_code == 201
    assert refused.complaint(await client.post("/sign-up", json=SIGN_UP | change, headers=headers)) is None
