"""The same seed makes the same campaign: its faults, and the clients' choices between equal answers."""

import asyncio
import time

import orjson

from load.campaign.faults import kinds
from load.campaign.ground import Customer, Field, OnSale
from load.campaign.history import Operation
from load.campaign.plan import plan
from load.campaign.shoppers import Client

OPERATIONS = 60
SESSIONS = [OnSale(number, range(24 * number, 24 * number + 24), 14) for number in range(1, 5)]


def test_the_same_seed_plans_the_same_faults() -> None:
    assert plan(7, 600, kinds("all"), every_seconds=3) == plan(7, 600, kinds("all"), every_seconds=3)
    assert plan(7, 600, kinds("all"), every_seconds=3) != plan(8, 600, kinds("all"), every_seconds=3)


def test_a_plan_has_each_kind_before_one_comes_again() -> None:
    planned = [fault.kind for fault in plan(1, 600, kinds("all"), every_seconds=3)]
    assert set(planned[: len(kinds("all"))]) == set(kinds("all"))


async def test_the_same_seed_makes_the_same_requests() -> None:
    first = await requests_of("1-0")
    assert len(first) == OPERATIONS
    assert len({kind for kind, *_ in first}) >= 4
    assert await requests_of("1-0") == first
    assert await requests_of("1-1") != first


async def requests_of(seed: str) -> list[tuple[object, ...]]:
    """What a client with this seed asks a service that refuses everything."""
    asked: list[tuple[object, ...]] = []

    def record(operation: Operation) -> None:
        asked.append((operation.kind, operation.session, operation.seats, operation.key))
        if len(asked) >= OPERATIONS:
            ground.ends_at = 0

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ground = Field([url, url], SESSIONS, 1, record, time.monotonic() + 30)
        await Client(ground, Customer("customer", "token"), seed).run()
    return sorted(asked[:OPERATIONS], key=str)


async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers each request with a refusal."""
    body = orjson.dumps({"type": "urn:rowlock:problem:seats-taken", "seatIds": [24]})
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(next(line for line in head.splitlines() if line.startswith("Content-Length")).split(": ")[1])
            await reader.readexactly(length)
            writer.write(b"HTTP/1.1 409 Conflict\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
