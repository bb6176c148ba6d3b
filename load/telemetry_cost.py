"""`python -m load.telemetry_cost`: what seeing costs, as a share of the holds that are made without it.

Two API processes on one database take turns: one with metrics that are read every second, 1 % of the requests traced to
a receiver, and a line in the log for each request; one with none of that, where the metrics are replaced by nothing at
all. Each connection holds a seat of its own and releases it, again and again. Medians of the rounds; only the ratio
counts. Where nothing was read or traced there is no result.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import orjson
import uvloop
from fastapi import FastAPI

from dev.postgres import free_port
from load.servers import Servers, measured
from service import app as product
from service.metrics.families import Family
from service.migrate import migrate
from tests.collector import Collector, collecting
from tests.factories import Account, make_customers, make_session, make_settings
from tests.processes import gunicorn_process

CONNECTIONS = 16
WARM_UP_SECONDS = 2.0
SCRAPE_SECONDS = 1.0
"""Far more often than anybody does, so that a round sees several."""
GOAL = 0.90
SAMPLED = 0.01


class Nothing:
    """In place of a metric: it takes whatever it is told."""

    def inc(self, *_: float) -> None:
        """Nothing."""

    dec = set = observe = inc

    @contextmanager
    def time(self) -> Iterator[None]:
        """Nothing."""
        yield

    track_inprogress = time


def create_app_without_metrics() -> FastAPI:
    """The API, where nothing is counted."""
    nothing: Any = Nothing()
    Family.of = lambda _family, *_values: nothing  # type: ignore[method-assign]
    return product.create_app()


async def hold_for(url: str, buyers: Sequence[tuple[Account, int]], seconds: float) -> float:
    """Holds a second, each of which is released too."""
    end = time.perf_counter() + seconds
    counts = await asyncio.gather(*(_keep_holding(url, customer, seat_id, end) for customer, seat_id in buyers))
    return sum(counts) / seconds


async def _keep_holding(url: str, customer: Account, seat_id: int, end: float) -> int:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    rest = f" HTTP/1.1\r\nHost: rowlock\r\nAuthorization: Bearer {customer.token}\r\nContent-Length: 0\r\n\r\n"
    held = 0
    while time.perf_counter() < end:
        reply = await _ask(reader, writer, f"POST /customer/book/{seat_id}{rest}", b"201")
        await _ask(reader, writer, f"DELETE /customer/reservation/{reply['reservationId']}{rest}", b"200")
        held += 1
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return held


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: str, status: bytes) -> Any:
    writer.write(request.encode())
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    _, _, after = head.partition(b"content-length: ")
    body = await reader.readexactly(int(after.partition(b"\r\n")[0]))
    if not head.startswith(b"http/1.1 " + status):
        raise RuntimeError(f"{request[:40]}: {head!r} {body!r}")
    return orjson.loads(body)


async def compare(servers: Servers, collector: Collector, rounds: int, seconds: float) -> float:
    """Prints a line for each way and the ratio, which it returns."""
    database_url = servers.postgres.url()
    await migrate(database_url)
    sql, settings = await asyncpg.connect(database_url), make_settings(database_url)
    seat_ids = (await make_session(sql, settings, max(CONNECTIONS, 16))).seat_ids
    buyers = list(zip(await make_customers(sql, settings, CONNECTIONS), seat_ids, strict=True))
    seeing: dict[str, Any] = {
        "log_level": "info",
        "metrics_port": free_port(),
        "trace_endpoint": collector.url,
        "trace_sample_ratio": SAMPLED,
    }
    rates: dict[str, list[float]] = {"everything on": [], "everything off": []}
    async with (
        gunicorn_process("service.app:create_app()", database_url, **seeing) as on,
        gunicorn_process("load.telemetry_cost:create_app_without_metrics()", database_url, log_level="error") as off,
    ):
        ways = {"everything on": on.url, "everything off": off.url}
        for url in ways.values():
            await hold_for(url, buyers, WARM_UP_SECONDS)
        scrapes = 0
        for n in range(rounds):
            for name in list(ways) if n % 2 else reversed(ways):
                async with scraped(seeing["metrics_port"] if name == "everything on" else None) as counted:
                    rates[name].append(await hold_for(ways[name], buyers, seconds))
                scrapes += counted[0]
    await sql.close()
    if not scrapes or not collector.spans:
        raise RuntimeError(f"{scrapes} scrapes, {len(collector.spans)} spans: not everything was on")
    return _report(rates, scrapes, len(collector.spans))


@asynccontextmanager
async def scraped(port: int | None) -> AsyncIterator[list[int]]:
    """Reads the metrics during the block, as Prometheus would; how often is in the list's only element."""
    counted = [0]

    async def scrape() -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            while True:
                (await client.get("/metrics")).raise_for_status()
                counted[0] += 1
                await asyncio.sleep(SCRAPE_SECONDS)

    if port is None:
        yield counted
        return
    async with asyncio.TaskGroup() as group:
        task = group.create_task(scrape())
        yield counted
        task.cancel()


def _report(rates: dict[str, list[float]], scrapes: int, spans: int) -> float:
    sys.stdout.write(f"{'holds a second':<18}{'median':>8}   rounds\n")
    for name, measurements in rates.items():
        each = " ".join(f"{rate:.0f}" for rate in measurements)
        sys.stdout.write(f"{name:<18}{statistics.median(measurements):>8.0f}   {each}\n")
    on, off = map(statistics.median, rates.values())
    sys.stdout.write(
        f"ratio {on / off:.3f}, goal {GOAL:.2f}; {spans} spans were received, metrics read {scrapes} times\n"
    )
    return on / off


def main() -> None:
    """Ends with 1 where the goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m load.telemetry_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=8.0)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        servers, collector = stack.enter_context(measured()), stack.enter_context(collecting())
        ratio = uvloop.run(compare(servers, collector, arguments.rounds, arguments.seconds))
    if ratio < GOAL:
        sys.exit(1)


if __name__ == "__main__":
    main()
