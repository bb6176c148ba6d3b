"""The database of every measurement: a fresh copy of one template, with sessions on sale and customers with tokens."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from dev.postgres import Postgres
from load.bench import generator
from service.database import Connection
from service.migrate import migrate
from service.observability import logs
from service.settings import Settings
from tests.stage.factories import Account, OnSale, make_customers, make_session, make_settings
from tests.stage.verdict import broken_rules
from tests.stage.waiting import until

TEMPLATE, DATABASE = "bench_template", "bench"
CUSTOMERS = 4_001
"""A prime number: whatever the number of sessions, a customer comes to each session once before any session again."""
SEATS_PER_SESSION = 200
HOLDS_PER_SECOND_MAX = 16_000
"""As many seats as this are free for each second. A contender that needs more is refused, never slowed down."""
HOLD_SECONDS = 600
SQL = Path(__file__).with_name("one_call.sql")


@dataclass(frozen=True, slots=True)
class Ground:
    """`buyers` are pairs of a customer and a free seat, in the order in which they hold: sessions take turns."""

    postgres: Postgres
    folder: Path
    generator: Path
    settings: Settings
    customers: Sequence[Account]
    sessions: Sequence[OnSale]

    @property
    def buyers(self) -> list[tuple[Account, int]]:
        """Each seat once. The same customers come again and again, each time to another session."""
        seat_ids = (session.seat_ids[n] for n in range(SEATS_PER_SESSION) for session in self.sessions)
        return [(self.customers[n % len(self.customers)], seat_id) for n, seat_id in enumerate(seat_ids)]


async def prepare(postgres: Postgres, folder: Path, seconds: float) -> Ground:
    """Makes the template, with enough seats for measurements of this length. Raises ServerError."""
    logs.configure_logging("warning")
    program = generator.compiled(folder)
    sessions = int(HOLDS_PER_SECOND_MAX * seconds / SEATS_PER_SESSION)
    server = await asyncpg.connect(postgres.url())
    await server.execute(f"create database {TEMPLATE} template template0")
    await server.close()
    url = postgres.url(TEMPLATE)
    await migrate(url)
    settings = make_settings(url, hold_seconds=HOLD_SECONDS, token_minutes=1_440)
    sql = await asyncpg.connect(url)
    ground = Ground(
        postgres, folder, program, settings, await make_customers(sql, settings, CUSTOMERS),
        [await make_session(sql, settings, SEATS_PER_SESSION) for _ in range(sessions)],
    )  # fmt: skip
    await _add_one_call(sql, ground)
    # Every copy begins without work for autovacuum.
    await sql.execute("vacuum (freeze, analyze)")
    await sql.close()
    return ground


async def _add_one_call(sql: Connection, ground: Ground) -> None:
    await sql.execute(
        "create table bench_buyers (n bigint primary key, customer_id uuid not null, seat_id bigint not null)"
    )
    rows = [(n, customer.id, seat_id) for n, (customer, seat_id) in enumerate(ground.buyers)]
    await sql.copy_records_to_table("bench_buyers", records=rows)
    await sql.execute(SQL.read_text())


@asynccontextmanager
async def fresh_database(ground: Ground) -> AsyncIterator[str]:
    """The URL of a copy of the template, which is dropped at the end."""
    try:
        await _execute(ground.postgres, f"create database {DATABASE} template {TEMPLATE} strategy file_copy")
        # Neither the copy's checkpoint nor one of an earlier measurement's changes falls into this one.
        await _execute(ground.postgres, "checkpoint")
        yield ground.postgres.url(DATABASE)
    finally:
        await _execute(ground.postgres, f"drop database if exists {DATABASE} with (force)")


async def _execute(postgres: Postgres, statement: str) -> None:
    """On a connection of its own: a scenario may restart PostgreSQL."""
    sql = await asyncpg.connect(postgres.url())
    await sql.execute(statement)
    await sql.close()


COUNT = """
select count(*), count(*) filter (where state = 'CONFIRMED'), count(*) filter (where state = 'CANCELLED'),
    count(*) filter (where state = 'EXPIRED')
from reservations
"""
CHECK_SECONDS_MAX = 1_800
"""After a soak there are millions of events."""


async def check(url: str, held: int, paid: int = 0, released: int = 0, expired: int = 0) -> None:
    """The verdict. Raises RuntimeError unless every rule holds in the database and all that was acknowledged is stored.

    `held` are all of them, whatever became of them. One of the rules is that no seat has two owners.
    """
    sql = await asyncpg.connect(url, command_timeout=CHECK_SECONDS_MAX)
    broken = await broken_rules(sql)
    stored = tuple(await sql.fetchrow(COUNT) or ())
    await sql.close()
    if broken or stored != (held, paid, released, expired):
        raise RuntimeError(f"acknowledged {(held, paid, released, expired)}, stored {stored}, broken rules: {broken}")


LAGGING = """
select count(*) < $1 or min(number) < (select count(*) from events)
from cursors
"""
READERS = 3
"""The sequencer, the relay and the projector. The log of a measurement is never trimmed, so its numbers have no gap."""


async def settled_down(url: str, seconds_max: float = 60) -> float:
    """The seconds until the readers of the log have processed all events. Raises TimeoutError."""
    sql = await asyncpg.connect(url)
    began = time.perf_counter()

    async def has_settled() -> bool:
        return not await sql.fetchval(LAGGING, READERS)

    await until(has_settled, "all events read", seconds_max)
    await sql.close()
    return time.perf_counter() - began
