"""Our own service as it is deployed, with all features on: authentication, keys, limits, events, metrics and logs."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx

from dev.processes import Server, free_port
from dev.servers import RabbitMQ, Redis
from load.bench import generator
from load.bench.answers import Answers
from load.bench.generator import Load, get_unless, request
from load.bench.ground import HOLD_SECONDS, SEATS_PER_SESSION, Ground, check, fresh_database, settled_down
from load.bench.limits import hold_list, hold_requests, postgresql
from load.bench.measured import Measured, Timing
from tests.stage.factories import Account, make_session
from tests.stage.processes import Process, api_process, expirer_process

LIST_MEMBERS = 500
SETTLED_PER_SECOND_MAX = 9_000
HOT_CUSTOMERS = 1_000
MAPS = 20
"""Sessions whose maps are read. All of them are in Redis after the warm-up."""
LARGE_MAP_SEATS = 1_000


@dataclass(frozen=True, slots=True)
class Setup:
    """API processes and the generator's connections. `all_on`: Redis, RabbitMQ and an expirer share the machine."""

    processes: int = 1
    connections: int = 64
    all_on: bool = False

    def named(self, operation: str) -> str:
        """The name of a measurement."""
        processes = "1 process" if self.processes == 1 else f"{self.processes} processes"
        connections = "1 connection" if self.connections == 1 else f"{self.connections} connections"
        return f"{operation}, {'all on, ' if self.all_on else ''}{processes}, {connections}"


@dataclass(frozen=True, slots=True)
class System:
    """The running service: its database and other servers by name, the API's addresses, and the processes whose CPU
    time counts.
    """

    ground: Ground
    setup: Setup
    database_url: str
    urls: Sequence[str]
    parts: dict[str, list[int]]
    servers: dict[str, Server]

    async def send(self, requests: Iterable[bytes], timing: Timing, file: str = "requests", **changes: Any) -> Answers:
        """Runs the generator with these requests. Runs at the same time need a `file` of their own."""
        path = self.ground.folder / file
        generator.write(path, requests)
        load = replace(Load(self.setup.connections, timing.warm_up_seconds, timing.seconds), **changes)
        return await generator.run(self.ground.generator, self.urls, load, path, self.parts)

    async def catch_up(self) -> dict[str, float]:
        """The seconds that the readers of the log need after the load to process its events."""
        return {"catch_up_seconds": await settled_down(self.database_url)} if self.setup.all_on else {}


@asynccontextmanager
async def running(ground: Ground, setup: Setup, **settings: Any) -> AsyncIterator[System]:
    """Starts the processes on a fresh database, and always stops them."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(fresh_database(ground))
        parts = postgresql(ground)
        servers: dict[str, Server] = {"PostgreSQL": ground.postgres}
        settings = {"hold_seconds": HOLD_SECONDS, "log_level": "info", **settings}
        if setup.all_on:
            settings |= _start_stores(ground.folder / "stores", stack, servers)
            parts |= {name: [server.process.pid] for name, server in servers.items() if server.process}
        apis = [
            await stack.enter_async_context(api_process(url, metrics_port=free_port(), **settings))
            for _ in range(setup.processes)
        ]
        parts["API"] = [api.process.pid for api in apis]
        if setup.all_on:
            expirer = await stack.enter_async_context(started_expirer(url, settings))
            parts["expirer"] = [expirer.process.pid]
            await settled_down(url)
        yield System(ground, setup, url, [api.url for api in apis], parts, servers)


@asynccontextmanager
async def started_expirer(url: str, settings: dict[str, Any]) -> AsyncIterator[Process]:
    """The expirer with its metrics."""
    async with expirer_process(url, expirer_metrics_port=free_port(), **settings) as expirer:
        yield expirer


def _start_stores(folder: Path, stack: AsyncExitStack, servers: dict[str, Server]) -> dict[str, str]:
    """Starts Redis and RabbitMQ without data, and returns the settings that name them."""
    redis, rabbitmq = Redis(folder / "redis"), RabbitMQ(folder / "rabbitmq")
    servers |= {"Redis": redis, "RabbitMQ": rabbitmq}
    for store in (redis, rabbitmq):
        stack.callback(store.stop)
        store.start()
    # The next measurement starts without data too.
    stack.callback(rabbitmq.forget)
    return {"redis_url": redis.url, "broker_url": rabbitmq.url}


async def holds(ground: Ground, timing: Timing, setup: Setup) -> Measured:
    """Holds a second: each of another seat, with a key of its own."""
    async with running(ground, setup) as system:
        answers = await system.send(hold_requests(ground.buyers), timing)
        more = await system.catch_up()
        await check(system.database_url, held=answers.total.get(201, 0))
    return Measured.of_answers(setup.named("hold"), answers, 201, more=more)


async def payments(ground: Ground, timing: Timing, setup: Setup) -> Measured:
    """Payments a second for holds that were made before."""
    async with running(ground, setup) as system:
        held = await make_holds(system, timing)
        answers = await system.send((request("PUT", f"/customer/pay/{id_}", buyer) for id_, buyer in held), timing)
        more = await system.catch_up()
        await check(system.database_url, held=len(held), paid=answers.total.get(200, 0))
    return Measured.of_answers(setup.named("pay"), answers, 200, more=more)


async def releases(ground: Ground, timing: Timing, setup: Setup) -> Measured:
    """Releases a second of holds that were made before."""
    async with running(ground, setup) as system:
        held = await make_holds(system, timing)
        paths = ((f"/customer/reservation/{id_}", buyer) for id_, buyer in held)
        answers = await system.send((request("DELETE", path, buyer) for path, buyer in paths), timing)
        more = await system.catch_up()
        await check(system.database_url, held=len(held), released=answers.total.get(200, 0))
    return Measured.of_answers(setup.named("release"), answers, 200, more=more)


async def make_holds(system: System, timing: Timing) -> list[tuple[UUID, Account]]:
    """Enough holds to settle during the measurement, with their customers."""
    count = int(SETTLED_PER_SECOND_MAX * (timing.warm_up_seconds + timing.seconds))
    await hold_first(system.database_url, system.ground.buyers[:count])
    await system.catch_up()
    customers = {customer.id: customer for customer in system.ground.customers}
    sql = await asyncpg.connect(system.database_url)
    # Customers take turns, as they do with holds.
    rows = await sql.fetch("select id, customer_id from reservations order by id")
    # The statistics are those of a database that has had holds before.
    await sql.execute("vacuum (analyze) reservations, seats, events")
    await sql.close()
    return [(row["id"], customers[row["customer_id"]]) for row in rows]


async def hold_first(database_url: str, buyers: Sequence[tuple[Account, int]]) -> None:
    """Makes the holds without HTTP."""
    sql = await asyncpg.connect(database_url)
    for n in range(0, len(buyers), LIST_MEMBERS):
        await hold_list(sql, buyers[n : n + LIST_MEMBERS])
    await sql.close()


async def maps(ground: Ground, timing: Timing, setup: Setup) -> Measured:
    """Maps of 200 seats a second. The sessions take turns, and a quarter of the seats is held."""
    async with running(ground, setup) as system:
        buyers = ground.buyers[: len(ground.sessions) * SEATS_PER_SESSION // 4]
        await hold_first(system.database_url, buyers)
        await system.catch_up()
        requests = (
            request("GET", f"/customer/session/{session.id}", customer)
            for session, customer in zip(ground.sessions[:MAPS], ground.customers, strict=False)
        )
        answers = await system.send(requests, timing, repeated=True)
        await check(system.database_url, held=len(buyers))
    return Measured.of_answers(setup.named("map"), answers, 200)


async def large_maps(ground: Ground, timing: Timing, setup: Setup) -> Measured:
    """Maps of 1,000 seats a second. A quarter of the seats is held."""
    return await _large_maps(ground, timing, setup, 200)


async def unchanged_maps(ground: Ground, timing: Timing, setup: Setup) -> Measured:
    """The same by ETag: the map has not changed since, and is not sent again."""
    return await _large_maps(ground, timing, setup, 304)


async def _large_maps(ground: Ground, timing: Timing, setup: Setup, status: int) -> Measured:
    async with running(ground, setup) as system:
        sql = await asyncpg.connect(system.database_url)
        session = await make_session(sql, ground.settings, LARGE_MAP_SEATS)
        await sql.close()
        buyers = list(zip(ground.customers, session.seat_ids[: LARGE_MAP_SEATS // 4], strict=False))
        await hold_first(system.database_url, buyers)
        await system.catch_up()
        path, reader = f"/customer/session/{session.id}", ground.customers[0]
        async with httpx.AsyncClient(base_url=system.urls[0]) as client:
            etag = (await client.get(path, headers=reader.headers)).headers["etag"]
        asking = request("GET", path, reader) if status == 200 else get_unless(etag, path, reader)  # noqa: PLR2004
        answers = await system.send([asking], timing, repeated=True)
        await check(system.database_url, held=len(buyers))
    return Measured.of_answers(setup.named(f"map of {LARGE_MAP_SEATS} ({status})"), answers, status)


async def hot_seat(ground: Ground, timing: Timing, setup: Setup) -> Measured:
    """Refusals a second where all customers want one seat. There is one winner."""
    async with running(ground, setup) as system:
        buyers = [(customer, ground.sessions[0].seat_ids[0]) for customer in ground.customers[:HOT_CUSTOMERS]]
        # Each customer asks again and again with one key, and the winner gets the first answer again.
        answers = await system.send(hold_requests(buyers), timing, repeated=True)
        await check(system.database_url, held=1)
    return Measured.of_answers(setup.named("hot seat"), answers, 409, also=201)
