"""`python -m load.lateness`: how late unpaid seats are released, with RabbitMQ and by the sweep alone.

Customers hold 2,000 seats over HTTP, evenly over ten seconds, and do not pay. Lateness is `settled_at - expires_at`,
both by PostgreSQL's clock.
"""

import asyncio
import math
import sys
import time
from collections.abc import Collection, Sequence
from uuid import UUID

import asyncpg
import httpx

from load.servers import Servers, measured
from service.database import Connection
from service.migrate import migrate
from tests.stage.factories import Account, book, make_customers, make_session, make_settings
from tests.stage.processes import api_process, expirer_process
from tests.stage.waiting import until

HOLDS = 2_000
OVER_SECONDS = 10
HOLD_SECONDS = 5
HOLDS_PER_CUSTOMER = 10
"""The most that a customer may have. Each hold has one seat."""
ANSWER_SECONDS_MAX = 30

READ_LATENESS = """
select id, 1000 * extract(epoch from settled_at - expires_at)::float8 as late_ms
from reservations
where state = 'EXPIRED'
and id = any($1::uuid[])
"""

COUNT_HELD = """
select count(*)
from seats
where state = 'HELD'
"""


def percentile(values: Collection[float], percent: float) -> float:
    """By nearest rank: one of the values."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


async def make_holds(
    client: httpx.AsyncClient, customers: Sequence[Account], seat_ids: Sequence[int], over_seconds: float
) -> list[UUID]:
    """Holds each seat, evenly over the time, without waiting for earlier answers. Returns the reservations' ids."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        holding: list[asyncio.Task[UUID]] = []
        for n, seat_id in enumerate(seat_ids):
            await asyncio.sleep(began + n * over_seconds / len(seat_ids) - time.monotonic())
            holding.append(group.create_task(_hold(client, customers[n % len(customers)], seat_id)))
    return [task.result() for task in holding]


async def _hold(client: httpx.AsyncClient, customer: Account, seat_id: int) -> UUID:
    reply = await book(client, customer, seat_id)
    if not reply.is_success:
        raise RuntimeError(f"a hold was refused: {reply.text}")
    return UUID(reply.json()["reservationId"])


async def read_lateness(sql: Connection, ids: Collection[UUID]) -> dict[UUID, float]:
    """Milliseconds for each hold, once no seat is held."""

    async def all_are_back() -> bool:
        return not await sql.fetchval(COUNT_HELD)

    await until(all_are_back, "the last seat")
    return {row["id"]: row["late_ms"] for row in await sql.fetch(READ_LATENESS, list(ids))}


async def run(servers: Servers, database_url: str, *, with_broker: bool) -> Collection[float]:
    """One round with its own API and expirer, on a database that has the schema. Milliseconds for each hold."""
    options = {"hold_seconds": HOLD_SECONDS, "redis_url": servers.redis.url}
    if with_broker:
        options["broker_url"] = servers.rabbitmq.url
    async with api_process(database_url, **options) as api, expirer_process(database_url, **options):
        sql = await asyncpg.connect(database_url)
        settings = make_settings(database_url)
        customers = await make_customers(sql, settings, HOLDS // HOLDS_PER_CUSTOMER)
        on_sale = await make_session(sql, settings, HOLDS)
        async with httpx.AsyncClient(base_url=api.url, timeout=ANSWER_SECONDS_MAX) as client:
            ids = await make_holds(client, customers, on_sale.seat_ids, OVER_SECONDS)
        late = await read_lateness(sql, ids)
        await sql.close()
    return late.values()


async def compare(servers: Servers) -> bool:
    """Prints a line for each way in which seats are released. Whether every bound is kept."""
    is_kept = True
    sys.stdout.write(f"{'':<16}{'back':>6}  {'early':>5}  {'p50 ms':>7}  {'p99 ms':>7}  {'max ms':>7}\n")
    for name, with_broker, p99_ms_max in (("with the broker", True, 300), ("the sweep alone", False, 1_200)):
        database = f"lateness_{'broker' if with_broker else 'sweep'}"
        sql = await asyncpg.connect(servers.postgres.url())
        await sql.execute(f"create database {database}")
        await sql.close()
        url = servers.postgres.url(database)
        await migrate(url)
        late = await run(servers, url, with_broker=with_broker)
        times = "  ".join(f"{percentile(late, percent):>7.1f}" for percent in (50, 99, 100))
        sys.stdout.write(f"{name:<16}{len(late):>6}  {sum(ms < 0 for ms in late):>5}  {times}\n")
        sys.stdout.flush()
        is_kept = is_kept and percentile(late, 99) <= p99_ms_max and min(late) >= 0
    return is_kept


if __name__ == "__main__":
    with measured() as started:
        is_kept = asyncio.run(compare(started))
    sys.exit(not is_kept)
