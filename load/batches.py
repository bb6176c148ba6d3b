"""`python -m load.batches`: how many dead letters a second the inbox settles in batches, and how many one at a time.

The dead letters of overdue holds already wait in RabbitMQ. An inbox in this process works as it does in the expirer:
take, settle in a transaction, acknowledge after the COMMIT. Rounds of both ways alternate, and their medians count. The
ratio depends less on the machine than the rates do.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import asyncpg
import uvloop
from sqlalchemy.ext.asyncio import AsyncEngine

from expirer.loops.inbox import Inbox
from load.servers import measured
from service.broker.messages import Hint
from service.database import Connection, create_engine
from service.migrate import migrate
from service.observability import logs
from service.settings import Settings
from tests.stage.broker import send_hints
from tests.stage.factories import hold_of, make_customers, make_overdue, make_session, make_settings
from tests.stage.forcing import give_all

ROUNDS = 5
RATIO_MIN = 8
LETTERS_ALONE, LETTERS_IN_BATCHES = 150, 2_500
"""A round of either takes about half a second."""
HOLDS_AT_ONCE = 500
CUSTOMERS = 100

COUNT_HELD = """
select count(*)
from reservations
where state = 'HELD'
"""

READ_HINTS = """
select id, expires_at
from reservations
where id = any($1::uuid[])
"""


@dataclass(frozen=True, slots=True)
class Rates:
    """Dead letters a second in each round."""

    alone: list[float]
    in_batches: list[float]

    @property
    def ratio(self) -> float:
        """The median in batches, divided by the median one at a time."""
        return statistics.median(self.in_batches) / statistics.median(self.alone)


async def compare(sql: Connection, engine: AsyncEngine, settings: Settings, rounds: int = ROUNDS) -> Rates:
    """Measures on a database that has the schema. `broker_url` must be set."""
    one_by_one = settings.model_copy(update={"inbox_batch_max": 1})
    rates = Rates([], [])
    for _ in range(rounds):
        rates.alone.append(await measure(sql, engine, one_by_one, LETTERS_ALONE))
        rates.in_batches.append(await measure(sql, engine, settings, LETTERS_IN_BATCHES))
    return rates


async def measure(sql: Connection, engine: AsyncEngine, settings: Settings, letters: int) -> float:
    """Dead letters a second."""
    async with _open_inbox(engine, settings) as inbox:
        # The first letter opens connections, declares queues and prepares statements.
        for count in (1, letters):
            await _make_letters(sql, settings, count)
            began, steps = time.perf_counter(), 0
            # The query takes time too, so it waits until all letters may be settled.
            while steps < count / settings.inbox_batch_max or await sql.fetchval(COUNT_HELD):
                await inbox.step()
                steps += 1
            seconds = time.perf_counter() - began
    return letters / seconds


async def _make_letters(sql: Connection, settings: Settings, count: int) -> None:
    """Makes overdue holds of one seat each, and their dead letters."""
    customers = await make_customers(sql, settings, CUSTOMERS)
    seat_ids = (await make_session(sql, settings, max(count, 16))).seat_ids[:count]
    requests = [hold_of(customers[n % CUSTOMERS], seat_id) for n, seat_id in enumerate(seat_ids)]
    ids: list[UUID] = []
    for n in range(0, count, HOLDS_AT_ONCE):
        ids += await give_all(sql, requests[n : n + HOLDS_AT_ONCE])
    await make_overdue(sql, *ids)
    assert settings.broker_url is not None
    hints = [Hint(row["id"], row["expires_at"]) for row in await sql.fetch(READ_HINTS, ids)]
    await asyncio.to_thread(send_hints, settings.broker_url.get_secret_value(), hints)


@asynccontextmanager
async def _open_inbox(engine: AsyncEngine, settings: Settings) -> AsyncIterator[Inbox]:
    inbox = Inbox(engine, settings)
    try:
        yield inbox
    finally:
        await inbox.close()


async def main() -> None:
    """Prints a line for each way, and the ratio. Exits with 1 where the bound is missed."""
    # A log line for each letter would take time too.
    logs.configure_logging("warning")
    with measured() as servers:
        await migrate(servers.postgres.url())
        settings = make_settings(servers.postgres.url(), broker_url=servers.rabbitmq.url)
        sql = await asyncpg.connect(servers.postgres.url())
        engine = create_engine(settings, "rowlock-load")
        rates = await compare(sql, engine, settings)
        await engine.dispose()
        await sql.close()
    sys.stdout.write(
        f"{'dead letters a second':<22}{'median':>8}   rounds\n"
        f"{_line('one at a time', rates.alone)}{_line('in batches', rates.in_batches)}"
        f"ratio {rates.ratio:.1f} (at least {RATIO_MIN})\n"
    )
    sys.exit(rates.ratio < RATIO_MIN)


def _line(name: str, rates: Sequence[float]) -> str:
    return f"{name:<22}{statistics.median(rates):>8.0f}   {' '.join(f'{rate:.0f}' for rate in rates)}\n"


if __name__ == "__main__":
    uvloop.run(main())
