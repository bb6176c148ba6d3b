"""Clients that send too slowly, too much, or do not read: they end, and nobody else notices."""

import asyncio
import resource
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from dev.postgres import Postgres
from service.api.protocol import HEAD_BYTES_MAX
from service.database import Connection
from service.settings import Settings
from tests.stage.factories import make_session
from tests.stage.processes import Process, api_process, connection_to
from tests.stage.waiting import until

IMPATIENT = {
    "request_head_seconds": 1, "request_body_seconds": 1, "idle_seconds": 1, "write_stall_seconds": 1,
}  # fmt: skip
SECONDS_MAX = 20
"""Until the end of a connection, on a busy machine."""
HOST = b"Host: rowlock\r\n"
LIVEZ = b"GET /livez HTTP/1.1\r\n" + HOST
SIGN_UP = b"POST /sign-up HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 100\r\n" + HOST
LARGE = 100_000
ENDLESS_MIB = 64


@pytest.fixture
async def api(postgres: Postgres, sql: Connection) -> AsyncIterator[Process]:  # noqa: ARG001 - emptied first
    """An API that waits only for a second."""
    async with api_process(postgres.url(), **IMPATIENT) as started:
        yield started


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    """All that came until the end of the connection."""
    async with asyncio.timeout(SECONDS_MAX):
        return await reader.read()


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"", b""),
        (LIVEZ, b"408"),
        (LIVEZ[:8], b"408"),
        (SIGN_UP + b"\r\n", b"408"),
        (SIGN_UP + b'\r\n{"email"', b"408"),
        (LIVEZ + b"\r\n", b"200"),
        (LIVEZ + b"\r\n" + LIVEZ, b"200"),
    ],
    ids=["nothing", "half a head", "half a line", "no body", "half a body", "one request", "and half of another"],
)
async def test_a_client_that_pauses_is_cut_off(api: Process, sent: bytes, answer: bytes) -> None:
    async with connection_to(api) as (reader, writer):
        writer.write(sent)
        got = await until_closed(reader)
    assert got[9:12] == answer
    assert (b"urn:rowlock:problem:request-timeout" in got) is (answer == b"408")


async def test_a_client_that_is_slow_but_in_time_is_answered(api: Process) -> None:
    async with connection_to(api) as (reader, writer):
        for byte in LIVEZ + b"\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
        assert b" 200 " in await reader.readuntil(b"\r\n")


@pytest.mark.parametrize("piece", [b"X-Endless: ", b"a" * 65_536, b"X-Short: 1\r\n" * 5_000])
async def test_an_endless_head_is_refused(api: Process, piece: bytes) -> None:
    cpu = api.cpu_seconds()
    async with connection_to(api) as (reader, writer):
        writer.write(LIVEZ + b"X-Endless: ")
        try:
            for _ in range(ENDLESS_MIB * 2**20 // len(piece)):
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            # The answer may be lost where the client goes on sending.
            got = b""
        else:
            got = await until_closed(reader)
    assert not got or b"head-too-large" in got
    assert api.cpu_seconds() - cpu < 2, "the parts were joined again and again"


@pytest.mark.parametrize("piece", [b"a" * 65_536, b"1;" + b"a" * 60_000 + b"\r\nx\r\n"], ids=["trailer", "extension"])
async def test_an_endless_end_of_a_body_is_refused(api: Process, piece: bytes) -> None:
    cpu = api.cpu_seconds()
    chunked = SIGN_UP.replace(b"Content-Length: 100", b"Transfer-Encoding: chunked")
    async with connection_to(api) as (_reader, writer):
        writer.write(chunked + b"\r\n" + (b"0\r\nX-Endless: " if piece.startswith(b"a") else b""))
        with suppress(ConnectionError):
            for _ in range(ENDLESS_MIB * 2**20 // len(piece)):
                writer.write(piece)
                await writer.drain()
            pytest.fail("all of it was read")
    assert api.cpu_seconds() - cpu < 2


async def test_a_body_in_small_chunks_is_accepted(api: Process) -> None:
    body = b'{"email": "ada@example.com", "password": "correct horse battery", "name": "Ada"}' + b" " * 20_000
    chunked = SIGN_UP.replace(b"Content-Length: 100", b"Transfer-Encoding: chunked") + b"\r\n"
    async with connection_to(api) as (reader, writer):
        writer.write(chunked + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
        assert b" 201 " in await reader.readuntil(b"\r\n")


async def test_headers_up_to_the_bound_are_accepted(api: Process) -> None:
    async with connection_to(api) as (reader, writer):
        head = LIVEZ + b"X-Long: " + b"a" * (HEAD_BYTES_MAX - len(LIVEZ) - 12) + b"\r\n\r\n"
        assert len(head) == HEAD_BYTES_MAX
        writer.write(head)
        assert b" 200 " in await reader.readuntil(b"\r\n")


async def test_a_client_that_does_not_read_is_cut_off(api: Process, sql: Connection, settings: Settings) -> None:
    session = await make_session(sql, settings, LARGE)
    address = urlsplit(api.url)
    (worker,) = psutil.Process(api.process.pid).children()
    with socket.create_connection((address.hostname, address.port)) as client:
        own = client.getsockname()[1]
        client.sendall(b"GET /customer/session/%d HTTP/1.1\r\n%b\r\n" % (session.id, HOST))
        client.recv(1)

        async def is_cut_off() -> bool:
            return not [one for one in worker.net_connections("tcp") if one.raddr and one.raddr.port == own]

        assert not await is_cut_off()
        await until(is_cut_off, "the end of the connection", 2 * SECONDS_MAX)


async def test_open_files_are_bounded_by_the_system_alone(api: Process) -> None:
    (worker,) = psutil.Process(api.process.pid).children()
    soft, hard = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
    assert soft == hard


async def test_a_request_after_the_order_to_stop_is_answered(postgres: Postgres, sql: Connection) -> None:  # noqa: ARG001
    async with api_process(postgres.url()) as api, connection_to(api) as (reader, writer):
        writer.write(LIVEZ + b"\r\n")
        await reader.readuntil(b"}")
        api.process.send_signal(signal.SIGTERM)
        async with httpx.AsyncClient(base_url=api.url) as client, asyncio.timeout(SECONDS_MAX):
            # Its socket is closed first: then the order has come.
            while not await refused(client):
                pass
        writer.write(LIVEZ + b"\r\n")
        got = await until_closed(reader)
    assert b" 200 " in got
    assert b"connection: close" in got


async def refused(client: httpx.AsyncClient) -> bool:
    """Whether no new connection is accepted."""
    try:
        await client.get("/livez", headers={"Connection": "close"})
    except httpx.TransportError:
        return True
    return False
