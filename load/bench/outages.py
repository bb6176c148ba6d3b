"""A server is stopped for five seconds in the middle of a sale: holds at a quarter of the capacity, everything on."""

import asyncio
from functools import partial

import asyncpg

from load.bench import ours
from load.bench.answers import Answers
from load.bench.filling import add_buyers
from load.bench.ground import Ground, check, settled_down
from load.bench.latencies import by_status, latencies
from load.bench.limits import hold_requests, key_of
from load.bench.measured import Timing
from load.bench.ours import Setup, System, running

AWAY_SECONDS, RECOVERY_SECONDS = 5, 20
"""RabbitMQ alone needs several seconds to start."""
CATCH_UP_SECONDS_MAX = 180
CREATED = 201

KEYS = """
select idempotency_key
from reservations
"""


async def _outage(ground: Ground, timing: Timing, name: str) -> dict[str, float]:
    """The named server is stopped while customers hold seats. Every acknowledged hold must be stored."""
    setup = Setup(all_on=True)
    capacity = (await ours.holds(ground, timing, setup)).per_second
    rate, seconds = capacity / 4, timing.seconds + AWAY_SECONDS + RECOVERY_SECONDS
    async with running(ground, setup) as system:
        buyers = await add_buyers(ground, system.database_url, int(rate * seconds))
        # Its process ends: its CPU time can't be read to the end.
        del system.parts[name]
        sending = asyncio.create_task(system.send(hold_requests(buyers), Timing(0, seconds), rate=rate))
        await asyncio.sleep(timing.seconds)
        await _stop_for_a_while(system, name)
        answers = await sending
        caught_up = await settled_down(system.database_url, CATCH_UP_SECONDS_MAX)
        unacknowledged = await _check(system, answers)
    return {
        "holds a second at most": capacity,
        "holds acknowledged": answers.total[CREATED],
        **by_status(answers),
        "holds stored, but not acknowledged": unacknowledged,
        "longest seconds without an acknowledged hold": answers.longest_without(CREATED),
        "seconds until all events are read": caught_up,
        **latencies("at a quarter of the capacity", answers),
    }


async def _stop_for_a_while(system: System, name: str) -> None:
    server = system.servers[name]
    await asyncio.to_thread(server.stop)
    await asyncio.sleep(AWAY_SECONDS)
    # Here, because a server ends with the thread that has started it.
    server.launch()
    await asyncio.to_thread(server.wait_until_up)


async def _check(system: System, answers: Answers) -> int:
    """The number of holds that are stored although their customers got another answer. Raises RuntimeError."""
    sql = await asyncpg.connect(system.database_url)
    stored = {row["idempotency_key"] for row in await sql.fetch(KEYS)}
    await sql.close()
    acknowledged = {key_of(answers.numbers[n]) for n in answers.with_status(CREATED)}
    if lost := acknowledged - stored:
        raise RuntimeError(f"{len(lost)} acknowledged holds are lost: {sorted(lost)[:5]}")
    await check(system.database_url, held=len(stored))
    return len(stored - acknowledged)


redis_away = partial(_outage, name="Redis")
broker_away = partial(_outage, name="RabbitMQ")
restart = partial(_outage, name="PostgreSQL")
