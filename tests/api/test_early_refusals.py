"""Holds beyond the queue are refused before they are parsed, with the answer that the whole way would give."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx
import pytest

from dev.postgres import Postgres
from service.api.early import first_seat
from service.database import Connection
from service.settings import Settings
from tests.stage.factories import Account, make_customers, make_session
from tests.stage.forcing import PATIENT, locked
from tests.stage.processes import Process, api_process, connection_to
from tests.stage.waiting import until, until_lock_waits

HOST = b"Host: rowlock\r\n"
WRITES_MAX = 2
BUSY = "urn:rowlock:problem:busy"


def hold(seat_id: int, more: bytes = b"") -> bytes:
    """A request without a token."""
    return b"POST /customer/book/%d HTTP/1.1\r\n%b%b\r\n" % (seat_id, HOST, more)


def holds(body: bytes, more: bytes = b"") -> bytes:
    """The same for several seats."""
    length = b"Content-Length: %d\r\n" % len(body)
    return b"POST /customer/book HTTP/1.1\r\n%b%b%b\r\n%b" % (HOST, length, more, body)


@pytest.mark.parametrize(
    ("data", "seat_id"),
    [
        (hold(17), 17),
        (hold(17, b"Connection: keep-alive\r\n"), 17),
        (holds(b'{"seatIds":[18,17]}'), 17),
        (hold(17)[:-2], None),
        (hold(17, b"Connection: close\r\n"), None),
        (hold(17, b"Transfer-Encoding: chunked\r\n"), None),
        (hold(17, b"Expect: 100-continue\r\n"), None),
        (hold(17) + hold(18), None),
        (hold(17).replace(b"1.1", b"1.0"), None),
        (hold(17).replace(b"/17", b"/17?a=b"), None),
        (hold(17).replace(b"/17", b"/x"), None),
        (holds(b'{"seatIds":[18,17]}')[:-1], None),
        (holds(b'{"seatIds":[]}'), None),
        (holds(b'{"seatIds":["x"]}'), None),
        (holds(b'{"seats":[17]}'), None),
        (holds(b"[17]"), None),
        (holds(b"{"), None),
    ],
)
def test_only_whole_and_usual_requests_name_a_seat(data: bytes, seat_id: int | None) -> None:
    assert first_seat(data) == seat_id


@asynccontextmanager
async def full(
    postgres: Postgres, sql: Connection, customers: Sequence[Account], seat_ids: Sequence[int], **changes: int
) -> AsyncIterator[Process]:
    """An API whose queue is full: these customers wait for locked seats."""
    bounds = {"writes_max": WRITES_MAX, "session_writes_max": WRITES_MAX, **PATIENT, **changes}
    async with (
        api_process(postgres.url(), **bounds) as api,
        httpx.AsyncClient(base_url=api.url, timeout=60) as client,
        asyncio.TaskGroup() as group,
        locked(postgres, "seats", *seat_ids),
    ):
        for n, (customer, seat_id) in enumerate(zip(customers, seat_ids, strict=True), 1):
            group.create_task(client.post(f"/customer/book/{seat_id}", headers=customer.headers))
            await until_lock_waits(sql, n)
        yield api


async def until_read(api: Process) -> None:
    """Returns when the API has read what was sent on other connections before."""
    async with httpx.AsyncClient(base_url=api.url) as client:
        await client.get("/livez")


async def test_a_refusal_is_that_of_the_whole_way(postgres: Postgres, sql: Connection, settings: Settings) -> None:
    *waiting, other = await make_customers(sql, settings, WRITES_MAX + 1)
    seat_ids = (await make_session(sql, settings)).seat_ids
    url, named = f"/customer/book/{seat_ids[5]}", {"X-Request-ID": "the-request"}
    async with (
        full(postgres, sql, waiting, seat_ids[:WRITES_MAX]) as api,
        httpx.AsyncClient(base_url=api.url) as client,
    ):
        unread = await client.post(url, headers=named)
        unusual = await client.post(url, headers=named | other.headers | {"Connection": "close"})
        assert "holds refused unread" in api.output()
    assert unread.status_code == unusual.status_code == 503
    assert unread.json()["type"] == BUSY
    assert unread.content == unusual.content
    assert set(unread.headers) == set(unusual.headers) - {"connection"}
    assert {name: unread.headers[name] for name in ("retry-after", "content-type", "x-request-id")} == {
        name: unusual.headers[name] for name in ("retry-after", "content-type", "x-request-id")
    }


async def test_a_full_session_alone_is_refused_unread(postgres: Postgres, sql: Connection, settings: Settings) -> None:
    *waiting, other = await make_customers(sql, settings, WRITES_MAX + 1)
    seat_ids, elsewhere = [(await make_session(sql, settings)).seat_ids for _ in range(2)]
    async with (
        api_process(postgres.url(), session_writes_max=WRITES_MAX, **PATIENT) as api,
        httpx.AsyncClient(base_url=api.url, timeout=60) as client,
    ):
        # The process learns the session of a seat with its first hold.
        for seat_id in (*seat_ids[:WRITES_MAX], seat_ids[5]):
            hold_id = (await client.post(f"/customer/book/{seat_id}", headers=other.headers)).json()["reservationId"]
            await client.delete(f"/customer/reservation/{hold_id}", headers=other.headers)
        async with asyncio.TaskGroup() as group, locked(postgres, "seats", *seat_ids[:WRITES_MAX]):
            for n, customer in enumerate(waiting):
                group.create_task(client.post(f"/customer/book/{seat_ids[n]}", headers=customer.headers))
                await until_lock_waits(sql, n + 1)
            refused = await client.post(f"/customer/book/{seat_ids[5]}")
            unauthenticated = await client.post(f"/customer/book/{elsewhere[0]}")
    assert (refused.status_code, refused.json()["type"]) == (503, "urn:rowlock:problem:session-busy")
    assert unauthenticated.status_code == 401


async def test_a_connection_serves_on_after_a_refusal(postgres: Postgres, sql: Connection, settings: Settings) -> None:
    waiting, seat_ids = await make_customers(sql, settings, WRITES_MAX), (await make_session(sql, settings)).seat_ids
    request = hold(seat_ids[5])
    async with full(postgres, sql, waiting, seat_ids[:WRITES_MAX]) as api, connection_to(api) as (reader, writer):
        for part in (request, request, request[:30]):
            writer.write(part)
            await writer.drain()
            if part is request:
                assert b" 503 " in await reader.readuntil(b"\r\n\r\n")
                await reader.readuntil(b"}")
        await until_read(api)
        # A part of a request goes to the parser, and so does the rest.
        writer.write(request[30:])
        assert b" 401 " in await reader.readuntil(b"\r\n\r\n")
        await reader.readuntil(b"}")
        writer.write(b"GET /livez HTTP/1.1\r\n%b\r\n" % HOST)
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")


async def test_a_hold_within_another_request_is_not_one(
    postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    waiting, seat_ids = await make_customers(sql, settings, WRITES_MAX), (await make_session(sql, settings)).seat_ids
    async with full(postgres, sql, waiting, seat_ids[:WRITES_MAX]) as api, connection_to(api) as (reader, writer):
        writer.write(b"GET /livez HTTP/1.1\r\n%bX-Text: " % HOST)
        await writer.drain()
        await until_read(api)
        writer.write(hold(seat_ids[5]))
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")


async def test_answers_on_a_connection_keep_their_order(
    postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    first, second = await make_customers(sql, settings, WRITES_MAX)
    seat_ids = (await make_session(sql, settings)).seat_ids
    token = f"Authorization: {second.headers['Authorization']}\r\n".encode()
    async with (
        api_process(postgres.url(), writes_max=WRITES_MAX, **PATIENT) as api,
        httpx.AsyncClient(base_url=api.url, timeout=60) as client,
        connection_to(api) as (reader, writer),
    ):
        async with asyncio.TaskGroup() as group, locked(postgres, "seats", *seat_ids[:WRITES_MAX]):
            group.create_task(client.post(f"/customer/book/{seat_ids[0]}", headers=first.headers))
            await until_lock_waits(sql, 1)
            writer.write(hold(seat_ids[1], token))
            await until_lock_waits(sql, 2)
            writer.write(hold(seat_ids[5], token))
            assert (await client.post(f"/customer/book/{seat_ids[5]}")).status_code == 503
        assert b" 201 " in await reader.readuntil(b"\r\n\r\n")


async def test_holds_are_accepted_again_after_the_queue(
    postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    *waiting, other = await make_customers(sql, settings, WRITES_MAX + 1)
    seat_ids = (await make_session(sql, settings)).seat_ids
    async with (
        api_process(postgres.url(), writes_max=WRITES_MAX, **PATIENT) as api,
        httpx.AsyncClient(base_url=api.url, timeout=60) as client,
    ):
        async with asyncio.TaskGroup() as group, locked(postgres, "seats", *seat_ids[:WRITES_MAX]):
            for n, customer in enumerate(waiting):
                group.create_task(client.post(f"/customer/book/{seat_ids[n]}", headers=customer.headers))
                await until_lock_waits(sql, n + 1)
            assert (await client.post(f"/customer/book/{seat_ids[5]}", headers=other.headers)).status_code == 503

        async def is_held() -> bool:
            return (await client.post(f"/customer/book/{seat_ids[5]}", headers=other.headers)).status_code == 201

        await until(is_held, "a place in the queue")
