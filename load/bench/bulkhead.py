"""One session on sale at full load, and holds in other sessions."""

import asyncio

import asyncpg

from load.bench import ours
from load.bench.answers import Answers
from load.bench.filling import add_buyers, add_sessions
from load.bench.ground import Ground, check
from load.bench.latencies import by_status, latencies
from load.bench.limits import hold_requests
from load.bench.measured import Timing
from load.bench.ours import Setup, running
from tests.stage.factories import Account

CONNECTIONS = 1_024
"""Twice ROWLOCK_SESSION_WRITES_MAX (500): the session reaches its own bound."""
LOAD = 1.5
OTHERS_PER_SECOND = 100
CREATED = 201

SEATS = """
select id
from seats
where session_id = $1
order by id
"""


async def bulkhead(ground: Ground, timing: Timing) -> dict[str, float]:
    """Holds in one session at one and a half times the capacity, and 100 a second in other sessions."""
    capacity = (await ours.holds(ground, timing, Setup(connections=128, all_on=True))).per_second
    count, rate = int(OTHERS_PER_SECOND * timing.seconds), LOAD * capacity
    async with running(ground, Setup(connections=CONNECTIONS, all_on=True)) as system:
        others = hold_requests(await add_buyers(ground, system.database_url, 2 * count))
        wanted = hold_requests(await _buyers_of_one(ground, system.database_url, int(rate * timing.seconds)), 4 * count)

        async def hold_elsewhere() -> Answers:
            requests = [next(others) for _ in range(count)]
            return await system.send(requests, Timing(0, timing.seconds), "others", rate=OTHERS_PER_SECOND)

        quiet = await hold_elsewhere()
        async with asyncio.TaskGroup() as group:
            sale = group.create_task(system.send(wanted, Timing(0, timing.seconds), rate=rate))
            beside = group.create_task(hold_elsewhere())
        full, during = sale.result(), beside.result()
        await check(system.database_url, held=sum(answers.total[CREATED] for answers in (quiet, full, during)))
    return {
        "holds a second at most": capacity,
        "holds a second of the full session": full.measured[CREATED] / full.seconds,
        **by_status(full, " of the full session"),
        **by_status(during, " of other sessions"),
        **latencies("of other sessions, quiet", quiet),
        **latencies("of other sessions, beside the full one", during),
        "p99 of other sessions, times quiet": during.p99_ms / max(quiet.p99_ms, 0.001),
    }


async def _buyers_of_one(ground: Ground, url: str, count: int) -> list[tuple[Account, int]]:
    """Each seat of a new session with a customer, all customers in turn."""
    sql = await asyncpg.connect(url)
    (session_id,) = await add_sessions(sql, 1, count)
    seat_ids = [row["id"] for row in await sql.fetch(SEATS, session_id)]
    await sql.close()
    return [(ground.customers[n % len(ground.customers)], seat_id) for n, seat_id in enumerate(seat_ids)]
