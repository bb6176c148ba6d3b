"""`python -m load.telemetry_cost`: the throughput of holds with logs, metrics and traces, as a share of that without.

API processes on one database take turns. One has everything on: its metrics are read, 1 % of its requests are traced,
and each request has a log line. Two have everything off, and their metrics are replaced by an object that does nothing.
The difference between those two is noise, because equal processes differ by their memory layout. Each round starts new
processes. Each connection holds and releases a seat of its own. Only ratios within a round count, and their median.
There is no result if anything was not read, traced or logged.
"""

import argparse
import asyncio
import random
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import orjson
import uvloop
from fastapi import FastAPI
from prometheus_client import Metric

from dev.processes import free_port
from load.servers import Servers, measured
from service import app as product
from service.migrate import migrate
from service.observability.metrics.families import Family
from tests.stage.collector import Collector, collecting
from tests.stage.factories import Account, make_customers, make_session, make_settings
from tests.stage.metering import parsed, read
from tests.stage.processes import Process, gunicorn_process
from tests.stage.waiting import until

CONNECTIONS = 16
WARM_UP_SECONDS = 1.5
TURNS = 4
"""Turns of each process in a round, in a random order. In the last turn the metrics are read, and must include the
earlier holds. That is several times as often as the chart reads them.
"""
GOAL = 0.90
SAMPLED = 0.01
ON, OFF, OFF_TOO = "everything on", "everything off", "off as well"


class Nothing:
    """Replaces a metric, and accepts every call."""

    def inc(self, *_: float) -> None:
        """Nothing."""

    dec = set = observe = inc

    @contextmanager
    def time(self) -> Iterator[None]:
        """Nothing."""
        yield

    track_inprogress = time


def create_app_without_metrics() -> FastAPI:
    """The API without metrics."""
    nothing: Any = Nothing()
    Family.of = lambda _family, *_values: nothing  # type: ignore[method-assign]
    return product.create_app()


@dataclass(slots=True)
class Way:
    """A process of a round, with its work so far."""

    api: Process
    metrics_port: int | None = None
    held: int = 0
    seconds: float = 0
    cpu_seconds: float = 0

    async def take_turn(self, buyers: "Buyers", seconds: float, *, is_read: bool) -> None:
        """Holds seats for this time, and adds up the holds and the CPU time."""
        cpu_before, began, text = self.api.cpu_seconds(), time.perf_counter(), None
        async with asyncio.TaskGroup() as group:
            held = group.create_task(hold_for(self.api.url, buyers, seconds))
            if is_read and self.metrics_port is not None:
                text = group.create_task(read(self.metrics_port))
        self.seconds += time.perf_counter() - began
        self.cpu_seconds += self.api.cpu_seconds() - cpu_before
        if text is not None and holds_counted(parsed(text.result())) < self.held:
            raise RuntimeError("the metrics do not include all holds")
        self.held += held.result()

    def requests_logged(self) -> int:
        """The number of requests in its log."""
        return self.api.output().count('"event":"request"')


Buyers = Sequence[tuple[Account, int]]


async def hold_for(url: str, buyers: Buyers, seconds: float) -> int:
    """The number of holds that were made and released."""
    end = time.perf_counter() + seconds
    return sum(await asyncio.gather(*(_keep_holding(url, customer, seat_id, end) for customer, seat_id in buyers)))


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


def holds_counted(shown: Mapping[str, Metric]) -> float:
    """The number of holds in the metrics."""
    return sum(
        sample.value
        for sample in shown["rowlock_operation_duration_seconds"].samples
        if sample.name.endswith("_count") and (sample.labels["operation"], sample.labels["outcome"]) == ("hold", "done")
    )


async def measure(database_url: str, buyers: Buyers, collector: Collector, seconds: float) -> dict[str, Way]:
    """One round with new processes. Raises RuntimeError if not everything was on, or not everything off."""
    port = free_port()
    seeing = {
        "log_level": "info",
        "metrics_port": port,
        "trace_endpoint": collector.url,
        "trace_sample_ratio": SAMPLED,
    }
    collector.spans.clear()
    async with AsyncExitStack() as stack:
        on = await stack.enter_async_context(gunicorn_process("service.app:create_app()", database_url, **seeing))
        ways = {ON: Way(on, port)}
        for name in (OFF, OFF_TOO):
            app = "load.telemetry_cost:create_app_without_metrics()"
            ways[name] = Way(await stack.enter_async_context(gunicorn_process(app, database_url, log_level="error")))
        warm = {name: await hold_for(way.api.url, buyers, WARM_UP_SECONDS) for name, way in ways.items()}
        for turn in range(TURNS):
            for name in random.sample(list(ways), len(ways)):
                await ways[name].take_turn(buyers, seconds, is_read=turn == TURNS - 1)
        asked = 2 * (warm[ON] + ways[ON].held)

        async def all_logged() -> bool:
            return ways[ON].requests_logged() == asked

        await until(all_logged, f"{asked} requests in the log")
        if any(ways[name].requests_logged() for name in (OFF, OFF_TOO)):
            raise RuntimeError("a process that logs nothing has logged requests")
    traces = len({span.trace for span in collector.spans})
    # With this many requests, at least half of the expected traces always come.
    if traces < SAMPLED * asked / 2:
        raise RuntimeError(f"only {traces} traces of {asked} requests")
    return ways


async def compare(servers: Servers, collector: Collector, rounds: int, seconds: float) -> float:
    """Prints a line for each round and the medians, and returns the median ratio of holds."""
    database_url = servers.postgres.url()
    await migrate(database_url)
    sql, settings = await asyncpg.connect(database_url), make_settings(database_url)
    seat_ids = (await make_session(sql, settings, max(CONNECTIONS, 16))).seat_ids
    buyers = list(zip(await make_customers(sql, settings, CONNECTIONS), seat_ids, strict=True))
    await sql.close()
    _print("", "holds/s off", "on/off", "off/off", "CPU on/off", "off/off")
    table: list[list[float]] = []
    for number in range(rounds):
        table.append(_compared(await measure(database_url, buyers, collector, seconds)))
        _print(f"round {number + 1}", *table[-1])
    medians: list[float] = [statistics.median(column) for column in zip(*table, strict=True)]
    _print("median", *medians)
    sys.stdout.write(f"holds with everything on: {medians[1]:.3f} of off, goal {GOAL:.2f}\n")
    return medians[1]


def _compared(ways: Mapping[str, Way]) -> list[float]:
    """The rate with everything off, then ratios to it: holds a second and CPU time for each hold."""
    paces = {name: way.held / way.seconds for name, way in ways.items()}
    costs = {name: way.cpu_seconds / way.held for name, way in ways.items()}
    pace, cost = ((of[OFF] + of[OFF_TOO]) / 2 for of in (paces, costs))
    return [pace, paces[ON] / pace, paces[OFF_TOO] / paces[OFF], costs[ON] / cost, costs[OFF_TOO] / costs[OFF]]


def _print(name: str, *cells: float | str) -> None:
    shown = (f"{cell:>12}" if isinstance(cell, str) else f"{cell:>12.3f}" for cell in cells)
    sys.stdout.write(f"{name:<10}{''.join(shown)}\n")
    sys.stdout.flush()


def main() -> None:
    """Exits with 1 if the goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m load.telemetry_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.5, help="of a turn")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        servers, collector = stack.enter_context(measured()), stack.enter_context(collecting())
        ratio = uvloop.run(compare(servers, collector, arguments.rounds, arguments.seconds))
    if ratio < GOAL:
        sys.exit(1)


if __name__ == "__main__":
    main()
