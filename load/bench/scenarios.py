"""Other loads, each once: `make bench SCENARIO=flash`. Requests come at fixed times, but for the hot seat."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping

import asyncpg

from load.bench import bulkhead, cycles, growth, limits, mixes, ours, outages, overload, signing
from load.bench.answers import Answers
from load.bench.ground import Ground, check, settled_down
from load.bench.latencies import by_status, latencies
from load.bench.limits import hold_requests
from load.bench.measured import Timing
from load.bench.ours import Setup, hold_first, running, started_expirer
from tests.stage.factories import make_customers, make_session
from tests.stage.waiting import until

Scenario = Callable[[Ground, Timing], Awaitable[dict[str, float]]]

FLASH_SEATS, FLASH_BUYERS, FLASH_SECONDS = 10_000, 50_000, 10
FLASH_CONNECTIONS = 512
FLASH_SECONDS_MAX = 120
STORM_HOLDS, STORM_SECONDS, STORM_SECONDS_MAX = 100_000, 4, 120
OTHERS_PER_SECOND = 100
SEED = 1


async def hot(ground: Ground, timing: Timing) -> dict[str, float]:
    """One seat that all customers want, beside a route that does nothing."""
    nothing = await limits.nothing(ground, timing)
    found = {"nothing a second": nothing.per_second}
    for all_on in (False, True):
        measured = await ours.hot_seat(ground, timing, Setup(all_on=all_on))
        name = "refusals a second" + (", all on" if all_on else "")
        found |= {name: measured.per_second, f"{name}, of N": measured.per_second / nothing.per_second}
    return found


async def half(ground: Ground, timing: Timing) -> dict[str, float]:
    """The latency of holds at half of the capacity, which is measured just before."""
    found: dict[str, float] = {}
    for all_on in (False, True):
        setup = Setup(all_on=all_on)
        capacity = (await ours.holds(ground, timing, setup)).per_second
        async with running(ground, setup) as system:
            answers = await system.send(hold_requests(ground.buyers), timing, rate=capacity / 2)
            await check(system.database_url, held=answers.total.get(201, 0))
        suffix = ", all on" if all_on else ""
        found |= {f"holds a second at most{suffix}": capacity, **latencies("at half of it", answers, suffix)}
    return found


async def flash(ground: Ground, _timing: Timing) -> dict[str, float]:
    """A session of 10,000 seats, which 50,000 customers want within ten seconds; everything is on."""
    async with running(ground, Setup(processes=2, connections=FLASH_CONNECTIONS, all_on=True)) as system:
        sql = await asyncpg.connect(system.database_url)
        seat_ids = (await make_session(sql, ground.settings, FLASH_SEATS)).seat_ids
        customers = await make_customers(sql, ground.settings, FLASH_BUYERS)
        await sql.execute("vacuum (analyze)")
        await sql.close()
        chance = random.Random(SEED)  # noqa: S311 - the same buyers in each run
        buyers = [(customer, chance.choice(seat_ids)) for customer in customers]
        timing, rate = Timing(0, FLASH_SECONDS_MAX), FLASH_BUYERS / FLASH_SECONDS
        answers = await system.send(hold_requests(buyers), timing, rate=rate)
        caught_up = await settled_down(system.database_url)
        await check(system.database_url, held=answers.total.get(201, 0))
    wanted = len({seat_id for _, seat_id in buyers})
    if answers.total.get(201, 0) != wanted or answers.total.get(409, 0) != FLASH_BUYERS - wanted:
        raise RuntimeError(f"{wanted} of the seats were wanted, answers by status: {answers.total}")
    return {
        "seats sold": wanted,
        **by_status(answers),
        "seconds": answers.used.seconds,
        "answers a second": FLASH_BUYERS / answers.used.seconds,
        "seconds until all events are read": caught_up,
        **latencies("in the sale", answers),
    }


ARE_OVERDUE = """
select exists (select from reservations where state = 'HELD' and expires_at <= clock_timestamp())
"""

MAKE_OVERDUE = """
update reservations
set created_at = created_at - interval '1 day', expires_at = clock_timestamp()
where id in (select id from reservations order by id limit $1)
"""


async def storm(ground: Ground, _timing: Timing) -> dict[str, float]:
    """100,000 holds are due at once, while other customers hold seats; the sweep ends them, without RabbitMQ."""
    buyers = ground.buyers
    # With few seconds there are few seats. Some are left for the other customers.
    count = min(STORM_HOLDS, len(buyers) - 4 * STORM_SECONDS * OTHERS_PER_SECOND)
    others = iter(hold_requests(buyers[count:]))
    timing = Timing(0, STORM_SECONDS)
    async with running(ground, Setup()) as system, started_expirer(system.database_url, {}) as expirer:
        system.parts["expirer"] = [expirer.process.pid]
        await hold_first(system.database_url, buyers[:count])
        sql = await asyncpg.connect(system.database_url)
        await sql.execute("vacuum (analyze)")

        async def hold() -> Answers:
            requests = [next(others) for _ in range(STORM_SECONDS * OTHERS_PER_SECOND)]
            return await system.send(iter(requests), timing, rate=OTHERS_PER_SECOND)

        async def is_over() -> bool:
            return not await sql.fetchval(ARE_OVERDUE)

        quiet = await hold()
        await sql.execute(MAKE_OVERDUE, count)
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            holding = group.create_task(hold())
            await until(is_over, "all holds ended", STORM_SECONDS_MAX)
            seconds = time.perf_counter() - began
        stormy = holding.result()
        await sql.close()
        held = sum(answers.total.get(201, 0) for answers in (quiet, stormy))
        await check(system.database_url, held=count + held, expired=count)
    return {
        "holds due at once": count,
        "seconds until all are ended": seconds,
        "ended a second": count / seconds,
        **latencies("of other holds, quiet", quiet),
        **latencies("of other holds, in the storm", stormy),
    }


BY_NAME: Mapping[str, Scenario] = {
    "hot": hot,
    "half": half,
    "flash": flash,
    "storm": storm,
    "overload": overload.overload,
    "bulkhead": bulkhead.bulkhead,
    "browse": mixes.browse,
    "retry": mixes.retry,
    "cycle": cycles.cycle,
    "soak": cycles.soak,
    "signin": signing.signin,
    "redis-away": outages.redis_away,
    "broker-away": outages.broker_away,
    "restart": outages.restart,
    "growth": growth.growth,
}
