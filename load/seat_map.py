"""`python -m load.seat_map`: how fast the map of 1,000 seats is, as a ratio to a lean GET that does nothing.

One API process serves all routes, with the same limits and the same parsing. The routes take turns over the same
connections while customers hold seats: the map plain and compressed, the map by ETag (304), and the obvious way, which
is a hash in Redis with a field per seat and a list of objects. Only ratios of the rounds' medians count. `age` is the
map's own `ageMs`.
"""

import argparse
import asyncio
import math
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import cycle
from typing import Annotated
from urllib.parse import urlsplit

import asyncpg
import httpx
import orjson
import uvloop
from fastapi import Depends, FastAPI, Header, Path
from starlette.responses import Response

from load.servers import Servers, measured
from service import app as product
from service.api import listings
from service.api.context import InContext, limit_read
from service.api.fields import FromDigits
from service.api.mapjson import SeatMapReply
from service.cache import Cache
from service.migrate import migrate
from service.settings import load
from tests.stage.factories import OnSale, book, make_customers, make_session, make_settings, release
from tests.stage.processes import expirer_process, gunicorn_process

SEATS = 1_000
CONNECTIONS = 32
WARM_UP_SECONDS = 1.0
HOLDS_PER_SECOND = 10
GOALS = {"map": 0.6, "map, gzip": 0.6, "map, 304": 0.6}
AGE_MS_MAX = 250
OBJECTS_KEY = "load:objects"


def create_app() -> FastAPI:
    """The API, with a route that does nothing, and one that serves the map in the obvious way."""
    loaded = load()

    # Before the application is made: it is a lean route, as the map is.
    @listings.router.get("/no-op/{sessionId}", response_class=Response, dependencies=[Depends(limit_read)])
    async def no_op(
        _session_id: Annotated[int, Path(alias="sessionId", ge=1), FromDigits],
        _context: InContext,
        _if_none_match: Annotated[str, Header(alias="if-none-match")] = "",
    ) -> Response:
        return Response(b"{}", media_type="application/json")

    app = product.create_app(loaded)
    cache = Cache(loaded)

    @app.get("/objects/{sessionId}", dependencies=[Depends(limit_read)])
    async def objects(session_id: Annotated[int, Path(alias="sessionId", ge=1)]) -> SeatMapReply:
        seats = await cache.run(lambda redis: redis.hgetall(OBJECTS_KEY))
        return SeatMapReply.model_validate(
            {
                "sessionId": session_id,
                "currency": "EUR",
                "source": "redis",
                "asOf": "2030-06-01T17:00:00Z",
                "ageMs": 0,
                "seats": [orjson.loads(seat) for seat in seats.values()],
            }
        )

    return app


async def ask_for(url: str, request: bytes, seconds: float) -> tuple[float, list[int]]:
    """Answers a second over all connections, and the maps' ages. A connection asks again when it is answered."""
    parts = urlsplit(url)
    ages: list[int] = []
    counts = [0] * CONNECTIONS
    end = time.perf_counter() + seconds

    async def keep_asking(n: int) -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 20)
        while time.perf_counter() < end:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert head.startswith((b"http/1.1 200", b"http/1.1 304")), head
            if length := int(_header(head, b"content-length") or 0):
                await reader.readexactly(length)
            if n == 0 and (age := _header(head, b"rowlock-age-ms")) is not None:
                ages.append(int(age))
            counts[n] += 1
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    await asyncio.gather(*map(keep_asking, range(CONNECTIONS)))
    return sum(counts) / seconds, ages


def _header(head: bytes, name: bytes) -> bytes | None:
    _, found, rest = head.partition(b"\r\n" + name + b": ")
    return rest.partition(b"\r\n")[0] if found else None


def requests(session_id: int, etag: str) -> dict[str, bytes]:
    """The requests of each round, by name. The others are compared with the first."""

    def get(path: str, header: str = "") -> bytes:
        return f"GET {path}/{session_id} HTTP/1.1\r\nHost: rowlock\r\n{header}\r\n".encode()

    session = "/customer/session"
    return {
        "no-op": get("/customer/no-op"),
        "map": get(session),
        "map, gzip": get(session, "Accept-Encoding: gzip\r\n"),
        "map, 304": get(session, f"If-None-Match: {etag}\r\n"),
        "HGETALL, objects": get("/objects"),
    }


@asynccontextmanager
async def holding(client: httpx.AsyncClient, servers: Servers, on_sale: OnSale) -> AsyncIterator[None]:
    """A customer holds one seat after another during the block, and releases each."""
    sql = await asyncpg.connect(servers.postgres.url())
    (customer,) = await make_customers(sql, make_settings(servers.postgres.url()), 1)
    await sql.close()

    async def keep_holding() -> None:
        for seat_id in cycle(on_sale.seat_ids):
            reply = await book(client, customer, seat_id)
            await asyncio.sleep(1 / HOLDS_PER_SECOND)
            # It fails if the last hold of the block before still exists.
            if reply.is_success:
                await release(client, customer, reply.json()["reservationId"])

    task = asyncio.create_task(keep_holding())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def compare(servers: Servers, rounds: int, seconds: float) -> bool:
    """Measures all routes in turn, and prints a line for each. Whether every bound is kept."""
    url = servers.postgres.url()
    await migrate(url)
    sql = await asyncpg.connect(url)
    on_sale = await make_session(sql, make_settings(url), SEATS)
    await sql.close()
    options = {"redis_url": servers.redis.url}
    rates: dict[str, list[float]] = defaultdict(list)
    ages: list[int] = []
    async with (
        gunicorn_process("load.seat_map:create_app()", url, **options) as api,
        expirer_process(url, **options),
        httpx.AsyncClient(base_url=api.url) as client,
    ):
        reply = await _settled(client, on_sale)
        cache = Cache(make_settings(url, **options))
        seats = {seat["seatId"]: orjson.dumps(seat) for seat in reply.json()["seats"]}
        await cache.run(lambda redis: redis.hset(OBJECTS_KEY, mapping=seats))
        await cache.close()
        for request in requests(on_sale.id, reply.headers["etag"]).values():
            await ask_for(api.url, request, WARM_UP_SECONDS)
        for _ in range(rounds):
            for name, request in requests(on_sale.id, reply.headers["etag"]).items():
                if name == "map, 304":
                    # Only an unchanged map is answered with 304.
                    rate, told = await ask_for(api.url, request, seconds)
                else:
                    async with holding(client, servers, on_sale):
                        rate, told = await ask_for(api.url, request, seconds)
                rates[name].append(rate)
                ages += told
    return _report(rates, ages)


async def _settled(client: httpx.AsyncClient, on_sale: OnSale) -> httpx.Response:
    """The map, once it comes from Redis."""
    while True:
        reply = await client.get(f"/customer/session/{on_sale.id}")
        if reply.json()["source"] == "redis":
            return reply
        await asyncio.sleep(0.05)


def _report(rates: dict[str, list[float]], ages: Sequence[int]) -> bool:
    medians = {name: statistics.median(values) for name, values in rates.items()}
    sys.stdout.write(f"{'':<18}{'median/s':>9}  {'min':>7}  {'max':>7}  {'of no-op':>8}  goal\n")
    for name, values in rates.items():
        ratio = medians[name] / medians["no-op"]
        goal = f">= {GOALS[name]}" if name in GOALS else ""
        sys.stdout.write(
            f"{name:<18}{medians[name]:>9.0f}  {min(values):>7.0f}  {max(values):>7.0f}  {ratio:>8.2f}  {goal}\n"
        )
    times = medians["map, gzip"] / medians["HGETALL, objects"]
    sys.stdout.write(f"the map, gzip, is {times:.1f} times as fast as HGETALL with objects\n")
    age = sorted(ages)[math.ceil(len(ages) * 0.99) - 1]
    sys.stdout.write(f"age p99 {age} ms (at most {AGE_MS_MAX})\n")
    return age <= AGE_MS_MAX and all(medians[name] / medians["no-op"] >= goal for name, goal in GOALS.items())


def main() -> None:
    """Starts its own servers, measures and prints. Exits with 1 where a bound is missed."""
    parser = argparse.ArgumentParser(prog="python -m load.seat_map", description=__doc__)
    parser.add_argument("--rounds", type=int, choices=range(1, 21), default=5, help="of each route (5)")
    parser.add_argument("--seconds", type=float, choices=[1.0, 2.0, 4.0, 8.0], default=4.0, help="each (4)")
    parsed = parser.parse_args()
    with measured() as servers:
        is_kept = uvloop.run(compare(servers, parsed.rounds, parsed.seconds))
    sys.exit(not is_kept)


if __name__ == "__main__":
    main()
