"""Holds with more and more seats, settled reservations or sessions in the database."""

from collections.abc import Awaitable, Callable

import asyncpg

from load.bench.filling import add_sessions, add_settled
from load.bench.ground import COUNT, Ground, check
from load.bench.latencies import latencies
from load.bench.limits import hold_requests
from load.bench.measured import Timing
from load.bench.ours import Setup, System, running
from service.database import Connection

SIZES = {
    "seats": (10_000, 100_000, 1_000_000),
    "reservations": (10_000, 100_000, 1_000_000),
    "sessions": (10, 1_000, 100_000),
}
"""Each besides the sessions and the free seats of every measurement. Ten times as many would take an hour to make."""
SEATS_OF_LARGE, SEATS_OF_SMALL = 1_000, 16

Fill = Callable[[Ground, Connection, int], Awaitable[None]]


async def growth(ground: Ground, timing: Timing) -> dict[str, float]:
    """Each size has a database of its own. Ratios are to the smallest size of the same kind."""
    found: dict[str, float] = {}
    for what, sizes in SIZES.items():
        first: dict[str, float] = {}
        for size in sizes:
            some = await _with(ground, timing, FILLS[what], size)
            first = first or some
            found |= {f"{name}, {size} {what}": value for name, value in some.items()}
            found |= {
                f"{name}, {size} {what}, of the smallest": some[name] / max(first[name], 0.001)
                for name in ("holds a second", "p99 ms at half of it")
            }
    return found


async def _with(ground: Ground, timing: Timing, fill: Fill, size: int) -> dict[str, float]:
    async with running(ground, Setup()) as system:
        sql = await asyncpg.connect(system.database_url)
        await fill(ground, sql, size)
        await sql.execute("vacuum (analyze)")
        held, paid, released, expired = await sql.fetchrow(COUNT) or (0, 0, 0, 0)
        # No write-out of the new rows falls into the measurement.
        await sql.execute("checkpoint")
        await sql.close()
        found, acknowledged = await _hold(system, timing)
        await check(system.database_url, held + acknowledged, paid, released, expired)
    return found


async def _hold(system: System, timing: Timing) -> tuple[dict[str, float], int]:
    """The figures, and the number of holds."""
    buyers = system.ground.buyers
    full = await system.send(hold_requests(buyers), timing)
    capacity, sent = full.measured[201] / full.seconds, sum(full.total.values())
    half = await system.send(hold_requests(buyers[sent:], sent), Timing(0, timing.seconds), rate=capacity / 2)
    found = {"holds a second": capacity, **latencies("at half of it", half)}
    return found, full.total[201] + half.total[201]


async def _seats(_ground: Ground, sql: Connection, count: int) -> None:
    await add_sessions(sql, count // SEATS_OF_LARGE, SEATS_OF_LARGE)


async def _sessions(_ground: Ground, sql: Connection, count: int) -> None:
    await add_sessions(sql, count, SEATS_OF_SMALL)


FILLS: dict[str, Fill] = {"seats": _seats, "reservations": add_settled, "sessions": _sessions}
