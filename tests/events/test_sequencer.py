"""Numbering the log: nothing that commits late is skipped, no number is missing or given twice, each seat in order."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import Postgres
from expirer.loops import sequencer
from service.database import Connection, create_engine
from service.events import log as event_log
from service.events import numbering
from service.ledger.settling import settle
from service.reservation import State
from service.settings import Settings
from tests.stage.databases import own_database
from tests.stage.factories import Account, make_customers, make_session, settle_of
from tests.stage.forcing import give
from tests.stage.holdings import make_holds, number_all
from tests.stage.waiting import until_lock_waits

pytestmark = pytest.mark.oldest_postgresql

STORM_SECONDS = float(os.environ.get("ROWLOCK_TEST_STORM_SECONDS", "4"))
HOLDERS, SEQUENCERS = 6, 3

NUMBERS = """
select array_agg(number order by id)
from events
"""
OUT_OF_ORDER = """
select number, seat_id, version, before
from (
    select e.number, seat->>'seatId' as seat_id, (seat->>'version')::int as version,
        lag((seat->>'version')::int) over (partition by seat->>'seatId' order by e.number) as before
    from events as e
    cross join lateral jsonb_array_elements(e.seats) as seat
) as told
where version <> before + 1
"""


async def numbers(sql: Connection) -> list[int | None]:
    """In the order of the ids."""
    return await sql.fetchval(NUMBERS) or []


async def test_events_get_numbers_without_gaps_in_the_order_of_ids(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    await make_holds(sql, settings, 24)
    ten = settings.model_copy(update={"sequencer_batch_max": 10})
    woken: list[bool] = []
    waits = [await sequencer.step(engine, ten, lambda: woken.append(True)) for _ in range(4)]
    assert await numbers(sql) == list(range(1, 26))
    assert waits == [0, 0, settings.sequencer_interval_ms / 1000, settings.sequencer_interval_ms / 1000]
    assert len(woken) == 3, "who reads is told of each batch that is not empty"


async def test_a_slow_transaction_that_commits_late_is_not_skipped(
    engine: AsyncEngine, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    slow_customer, customer = await make_customers(sql, settings, 2)
    seats = (await make_session(sql, settings)).seat_ids
    slow = await asyncpg.connect(postgres.url())
    late = slow.transaction()
    await late.start()
    await give(slow, slow_customer, seats[0])
    await give(sql, customer, seats[1])
    await number_all(engine, settings)
    assert [event.number for event in await event_log.read_numbered(sql, 0, 10)] == [1, 2]
    await late.commit()
    await slow.close()
    await number_all(engine, settings)
    assert await numbers(sql) == [1, 3, 2]
    (read,) = await event_log.read_numbered(sql, 2, 10)
    assert f'"seatId": {seats[0]}' in read.seats


async def test_second_sequencer_does_not_wait_and_numbers_nothing(
    postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    await make_holds(sql, settings, 4)
    assert await numbering.number_committed(sql, 1) == 1
    first = await asyncpg.connect(postgres.url())
    try:
        async with first.transaction():
            assert await numbering.number_committed(first, 2) == 2
            async with asyncio.timeout(20):
                assert await numbering.number_committed(sql, 10) == 0
        assert await numbering.number_committed(sql, 10) == 2
    finally:
        await first.close()
    assert await numbers(sql) == [1, 2, 3, 4, 5]


async def test_two_sequencers_that_begin_the_log_at_once_begin_it_once(
    postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    await make_holds(sql, settings, 4)
    first, second = [await asyncpg.connect(postgres.url()) for _ in range(2)]
    async with first.transaction():
        assert await numbering.number_committed(first, 2) == 2
        other = asyncio.create_task(numbering.number_committed(second, 10))
        await until_lock_waits(sql)
    assert await other == 3
    assert await numbers(sql) == [1, 2, 3, 4, 5]
    for connection in (first, second):
        await connection.close()


async def test_numbers_of_a_crashed_sequencer_are_given_again(
    postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    await make_holds(sql, settings, 4)
    assert await numbering.number_committed(sql, 2) == 2
    dying = await asyncpg.connect(postgres.url())
    await dying.execute("begin")
    assert await numbering.number_committed(dying, 10) == 3
    await dying.close()
    assert await numbering.number_committed(sql, 10) == 3
    assert await numbers(sql) == [1, 2, 3, 4, 5]


@asynccontextmanager
async def open_write_transactions(postgres: Postgres) -> AsyncIterator[None]:
    """One in this database and one elsewhere on the server, as long as the body takes."""
    async with own_database(postgres, "elsewhere") as url:
        others = [await asyncpg.connect(url), await asyncpg.connect(postgres.url())]
        for other in others:
            # As a report or a migration that takes its time: it has written, and keeps a snapshot.
            await other.execute("begin isolation level repeatable read; select pg_current_xact_id()")
        yield
        for other in others:
            assert other.is_in_transaction()
            await other.close()


async def test_open_transaction_does_not_delay_the_numbering(
    engine: AsyncEngine, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    async with open_write_transactions(postgres):
        await make_holds(sql, settings, 15)
        await number_all(engine, settings)
        assert await numbers(sql) == list(range(1, 17))


async def test_looking_for_events_writes_nothing(engine: AsyncEngine, sql: Connection, settings: Settings) -> None:
    await make_holds(sql, settings, 1)
    await number_all(engine, settings)
    row = await sql.fetchrow("select xmin, xmax from cursors")
    await sequencer.step(engine, settings, lambda: None)
    assert await sql.fetchrow("select xmin, xmax from cursors") == row, "not even a lock, which is written down"


async def test_when_everything_is_trimmed_the_numbers_go_on(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    await make_session(sql, settings)
    await number_all(engine, settings)
    await sql.execute("update events set at = at - interval '1 year'")
    assert await event_log.trim(sql, 1, 10) == 1
    await make_session(sql, settings)
    await number_all(engine, settings)
    assert await numbers(sql) == [2]
    # Even if the sequencer's own row was deleted: no reader gets a number twice.
    await sql.execute("update cursors set name = 'reader'; delete from events")
    await make_session(sql, settings)
    await number_all(engine, settings)
    assert await numbers(sql) == [3]


async def contend(
    postgres: Postgres, customer: Account, seat_ids: Sequence[int], end: float, changes: list[int]
) -> None:
    """Holds and releases one seat after the other for a while."""
    connection = await asyncpg.connect(postgres.url())
    while time.monotonic() < end:
        seat = random.choice(seat_ids)
        try:
            held = await give(connection, customer, seat)
        except AssertionError:
            continue
        async with connection.transaction():
            await settle(connection, [settle_of(held, State.CANCELLED, customer)])
        changes.append(seat)
    await connection.close()


async def keep_numbering(settings: Settings, holding: "asyncio.Future[list[None]]") -> None:
    """A sequencer of its own, until no customer holds any more."""
    small = settings.model_copy(update={"sequencer_batch_max": 20})
    own = create_engine(small, "rowlock-test")
    while not holding.done():
        await sequencer.step(own, small, lambda: None)
    await own.dispose()


async def test_numbers_follow_the_versions_of_a_seat_in_a_storm(
    engine: AsyncEngine, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customers = await make_customers(sql, settings, HOLDERS)
    seats = (await make_session(sql, settings)).seat_ids[:2]
    changes: list[int] = []
    async with open_write_transactions(postgres):
        end = time.monotonic() + STORM_SECONDS
        holding = asyncio.gather(*[contend(postgres, customer, seats, end, changes) for customer in customers])
        await asyncio.gather(holding, *[keep_numbering(settings, holding) for _ in range(SEQUENCERS)])
        await number_all(engine, settings)
        given = await sql.fetchval("select array_agg(number order by number) from events")
    assert given == list(range(1, 2 * len(changes) + 2))
    assert await sql.fetch(OUT_OF_ORDER) == []
    assert len(changes) > 2 * STORM_SECONDS
