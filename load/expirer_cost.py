"""`python -m load.expirer_cost`: the CPU time of one expirer and of its servers, at rest and under load.

Under load the ledger holds seats in lists at a fixed rate, without HTTP. The hold time is long, so only sequencer,
relay and projector have work. The CPU time of a process does not depend on the machine's other work as throughput does.
The expirer's share of PostgreSQL is that of its own connections; the background processes are apart.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import asyncpg
import psutil
import uvloop

from dev.processes import Server, free_port
from load.servers import Servers, measured
from service.database import Connection
from service.events.wakeups import Bell
from service.migrate import migrate
from service.settings import Settings
from tests.stage.factories import OnSale, hold_of, make_customers, make_session
from tests.stage.forcing import give_all
from tests.stage.metering import scrape
from tests.stage.processes import Process, expirer_process
from tests.stage.seat_maps import Projection, projecting, with_redis
from tests.stage.waiting import until

SETTLE_SECONDS = 3
"""After the start of the expirer, whose first steps connect and prepare statements."""
HOLD_SECONDS = 600
CUSTOMERS = 200
WARM_UP_HOLDS = 500
LIST_SECONDS = 0.01
"""The time between two lists."""

LIST_BACKENDS = """
select pid, application_name = 'rowlock-expirer' as is_its_own
from pg_stat_activity
where backend_type = 'client backend'
"""

READ_LAST = """
select min(number)
from cursors
"""


@dataclass(frozen=True, slots=True)
class Used:
    """CPU seconds by process, steps by loop, and the moment of reading."""

    at: float
    cpu: Mapping[str, float]
    steps: Mapping[str, float]

    def since(self, before: "Used") -> "Used":
        """The growth; `at` is the time between."""
        cpu = {name: seconds - before.cpu.get(name, 0) for name, seconds in self.cpu.items()}
        steps = {name: count - before.steps.get(name, 0) for name, count in self.steps.items()}
        return Used(self.at - before.at, cpu, steps)


@dataclass(frozen=True, slots=True)
class Meter:
    """Reads the counters of one expirer and of the servers."""

    servers: Servers
    expirer: Process
    metrics_port: int
    sql: Connection

    async def read(self) -> Used:
        """The counters now."""
        own = {row["pid"]: row["is_its_own"] for row in await self.sql.fetch(LIST_BACKENDS)}
        cpu = {
            "expirer": self.expirer.cpu_seconds(),
            "its connections": 0.0,
            "PostgreSQL's own": 0.0,
            "Redis": sum(map(_seconds, _family(self.servers.redis))),
            "RabbitMQ": sum(map(_seconds, _family(self.servers.rabbitmq))),
        }
        for process in _family(self.servers.postgres):
            if own.get(process.pid, True):
                cpu["its connections" if process.pid in own else "PostgreSQL's own"] += _seconds(process)
        steps = (await scrape(self.metrics_port))["rowlock_loop_step_duration_seconds"]
        counts = {each.labels["loop"]: each.value for each in steps.samples if each.name.endswith("_count")}
        return Used(time.monotonic(), cpu, counts)


def _family(server: Server) -> list[psutil.Process]:
    assert server.process is not None
    first = psutil.Process(server.process.pid)
    return [first, *first.children(recursive=True)]


def _seconds(process: psutil.Process) -> float:
    try:
        used = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return used.user + used.system


@dataclass(frozen=True, slots=True)
class Load:
    """Holds of one seat each, in lists of `at_once`, at this rate a second."""

    rate: float
    at_once: int
    seconds: float

    @property
    def count(self) -> int:
        """Of all holds."""
        return int(self.rate * self.seconds)

    async def run(self, sql: Connection, bell: Bell, settings: Settings, seat_ids: Sequence[int]) -> None:
        """Returns when every hold is committed and every reader of the log has read it."""
        customers = await make_customers(sql, settings, CUSTOMERS)
        last = await sql.fetchval(READ_LAST)
        began = time.monotonic()
        for n in range(0, self.count, self.at_once):
            await asyncio.sleep(began + n / self.rate - time.monotonic())
            part = seat_ids[n : min(n + self.at_once, self.count)]
            await give_all(sql, [hold_of(customers[m % CUSTOMERS], seat) for m, seat in enumerate(part)], HOLD_SECONDS)
            bell.ring()

        async def is_read() -> bool:
            return bool(await sql.fetchval(READ_LAST) >= last + self.count)

        await until(is_read, "the readers of the log")


async def measure(servers: Servers, rest_seconds: float, loads: Sequence[Load]) -> tuple[Used, list[Used]]:
    """The use of an expirer at rest, and under each load."""
    url, metrics_port = servers.postgres.url(), free_port()
    options = {"hold_seconds": HOLD_SECONDS, "redis_url": servers.redis.url, "broker_url": servers.rabbitmq.url}
    sql = await asyncpg.connect(url)
    settings = with_redis(url, servers.redis)
    bell = Bell(settings, "rowlock-load")
    async with expirer_process(url, expirer_metrics_port=metrics_port, **options) as expirer:
        meter = Meter(servers, expirer, metrics_port, sql)
        warm_up = Load(WARM_UP_HOLDS, 10, 1)
        on_sale = await make_session(sql, settings, sum(load.count for load in (warm_up, *loads)))
        async with projecting(settings) as projection:
            await until_mapped(projection, on_sale)
        seat_ids = on_sale.seat_ids
        await warm_up.run(sql, bell, settings, seat_ids)
        seat_ids = seat_ids[warm_up.count :]
        await asyncio.sleep(SETTLE_SECONDS)
        before = await meter.read()
        await asyncio.sleep(rest_seconds)
        rest = (await meter.read()).since(before)
        used = []
        for load in loads:
            before = await meter.read()
            await load.run(sql, bell, settings, seat_ids)
            used.append((await meter.read()).since(before))
            seat_ids = seat_ids[load.count :]
    await bell.close()
    await sql.close()
    return rest, used


async def until_mapped(projection: Projection, on_sale: OnSale) -> None:
    """Returns when Redis has the map: without one the projector would have less work."""

    async def is_mapped() -> bool:
        return (await projection.get(on_sale)).source == "redis"

    await until(is_mapped, "the map")


def table(rest: Used, loads: Sequence[Load], used: Sequence[Used]) -> str:
    """Percent of a core at rest, and microseconds for each event of each load; steps a second below."""
    heads = ["rest %", *(f"{load.rate:.0f}/s µs" for load in loads)]
    lines = [f"{'':<18}" + "".join(f"{head:>14}" for head in heads)]
    for name, seconds in rest.cpu.items():
        cells = [100 * seconds / rest.at]
        cells += [1e6 * each.cpu[name] / load.count for load, each in zip(loads, used, strict=True)]
        lines.append(f"{name:<18}" + "".join(f"{cell:>14.2f}" for cell in cells))
    lines.append("steps a second")
    for name in sorted(rest.steps):
        cells = [each.steps[name] / each.at for each in (rest, *used)]
        lines.append(f"  {name:<16}" + "".join(f"{cell:>14.1f}" for cell in cells))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rest-seconds", type=float, default=30)
    parser.add_argument("--load-seconds", type=float, default=10)
    parser.add_argument("--rates", type=float, nargs="*", default=[400, 2_500])
    given = parser.parse_args()
    loads = [Load(rate, max(1, int(rate * LIST_SECONDS)), given.load_seconds) for rate in given.rates]
    with measured() as servers:
        asyncio.run(migrate(servers.postgres.url()))
        rest, used = uvloop.run(measure(servers, given.rest_seconds, loads))
    sys.stdout.write(table(rest, loads, used))


if __name__ == "__main__":
    main()
