"""More requests than the service can answer: holds at twice the capacity."""

from load.bench import ours
from load.bench.answers import Answers
from load.bench.filling import add_buyers
from load.bench.ground import Ground, check
from load.bench.latencies import by_status, latencies
from load.bench.limits import hold_requests
from load.bench.measured import Timing
from load.bench.ours import Setup, System, running

OVERLOAD, OVERLOAD_SECONDS_MAX = 2, 60
CONNECTIONS = 2_048
"""Twice ROWLOCK_WRITES_MAX (1,000): the service's own bound is reached, and not the generator's. With fewer
connections than the bound nothing would be refused, and the requests would wait in the generator instead.
"""
CAPACITY_CONNECTIONS = 128
"""Enough for full lists. With fewer the capacity would be measured too low, and twice of it would be no overload."""
AFTER_SECONDS, AFTER_SLICE_SECONDS = 6, 0.25
NORMAL = 1.5
"""Latencies are normal again from the first slice on whose median is at most as many times the median before."""


async def overload(ground: Ground, timing: Timing) -> dict[str, float]:
    """Holds at twice the capacity, which is measured just before, and at a quarter of it before and after."""
    found: dict[str, float] = {}
    for all_on in (False, True):
        capacity = (await ours.holds(ground, timing, Setup(connections=CAPACITY_CONNECTIONS, all_on=all_on))).per_second
        async with running(ground, Setup(connections=CONNECTIONS, all_on=all_on)) as system:
            some = await _overloaded(system, timing, capacity)
        found |= {f"{name}{', all on' if all_on else ''}": value for name, value in some.items()}
    return found


async def _overloaded(system: System, timing: Timing, capacity: float) -> dict[str, float]:
    seconds = min(OVERLOAD_SECONDS_MAX, 10 * timing.seconds)
    quiet_count = int(capacity / 4 * (timing.warm_up_seconds + timing.seconds))
    count = int(OVERLOAD * capacity * seconds)
    after_count = int(capacity / 4 * AFTER_SECONDS)
    buyers = await add_buyers(system.ground, system.database_url, quiet_count + count + after_count)
    requests = hold_requests(buyers)
    quiet = await system.send([next(requests) for _ in range(quiet_count)], timing, rate=capacity / 4)
    loaded = await system.send([next(requests) for _ in range(count)], Timing(0, seconds), rate=OVERLOAD * capacity)
    # The generator waits for the last answers of the load first. That time counts.
    drained = max(loaded.until) - loaded.seconds
    after = await system.send([next(requests) for _ in range(after_count)], Timing(0, AFTER_SECONDS), rate=capacity / 4)
    acknowledged = sum(answers.total[201] for answers in (quiet, loaded, after))
    await check(system.database_url, held=acknowledged)
    goodput = loaded.measured[201] / loaded.seconds
    return {
        "holds a second at most": capacity,
        "holds a second at twice the capacity": goodput,
        "of the capacity": goodput / capacity,
        "share of refusals": loaded.measured[503] / sum(loaded.measured.values()),
        "p99 ms of refusals": loaded.percentile_ms(0.99, 503),
        "p99 ms of holds in the overload": loaded.percentile_ms(0.99, 201),
        "requests waiting in the generator at most": loaded.backlog_max,
        "seconds until latencies are normal": drained + seconds_until_normal(after, quiet.p50_ms),
        **by_status(loaded),
        **latencies("at a quarter of it, before", quiet),
        **latencies("at a quarter of it, after", after),
    }


def seconds_until_normal(after: Answers, normal_ms: float) -> float:
    """The begin of the first slice of requests whose median is normal; the whole time where none is."""
    for n in range(int(AFTER_SECONDS / AFTER_SLICE_SECONDS)):
        begin = n * AFTER_SLICE_SECONDS
        took = sorted(
            1_000 * (until - since)
            for since, until in zip(after.since, after.until, strict=True)
            if begin <= since < begin + AFTER_SLICE_SECONDS
        )
        if took and took[len(took) // 2] <= NORMAL * normal_ms:
            return begin
    return AFTER_SECONDS
