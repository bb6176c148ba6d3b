"""The keeper removes old events that every reader has passed, in bounded batches."""

import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from expirer.loops import keeper
from service.accounts.accounts import FORGET_FAILURES_MINUTES
from service.database import Connection
from service.events import cursors
from service.events import log as event_log
from service.settings import Settings
from tests.stage.factories import make_session

pytestmark = pytest.mark.oldest_postgresql

OLD = timedelta(hours=73)
NUMBERED = """
insert into events (number, kind, session_id, reservation_id, seats, at)
select number, 'session.created', $1, null, '[]', clock_timestamp() - $3::interval
from generate_series((select coalesce(max(number), 0) + 1 from events), $2) as number
"""

FAILURES = """
insert into sign_in_failures (email_hash, failures, last_at)
select sha256(convert_to($2::interval || ' ' || n, 'utf8')), 1, clock_timestamp() - $2::interval
from generate_series(1, $1) as n
"""


@pytest.fixture
async def session_id(sql: Connection, settings: Settings) -> int:
    """A session, whose own event is gone: the log is empty."""
    session = await make_session(sql, settings)
    await sql.execute("delete from events")
    return session.id


async def add_events(sql: Connection, session_id: int, last: int, age: timedelta = OLD) -> None:
    """Events up to the number, so old."""
    await sql.execute(NUMBERED, session_id, last, age)


async def set_cursors(sql: Connection, **numbers: int) -> None:
    """These are the cursors."""
    await sql.execute("delete from cursors")
    await sql.executemany("insert into cursors (name, number) values ($1, $2)", list(numbers.items()))


async def kept(sql: Connection) -> list[int]:
    """The numbers that are still there."""
    return [row["number"] for row in await sql.fetch("select number from events order by number")]


async def test_only_what_every_reader_has_passed_is_removed(
    engine: AsyncEngine, sql: Connection, settings: Settings, session_id: int
) -> None:
    await add_events(sql, session_id, 8)
    await set_cursors(sql, log=8, cache=7, broker=5)
    await keeper.step(engine, settings)
    assert await kept(sql) == [6, 7, 8]


async def test_only_what_is_old_is_removed(
    engine: AsyncEngine, sql: Connection, settings: Settings, session_id: int
) -> None:
    await add_events(sql, session_id, 3)
    await add_events(sql, session_id, 6, timedelta(hours=71))
    await set_cursors(sql, log=6, broker=6)
    await keeper.step(engine, settings)
    assert await kept(sql) == [4, 5, 6]


async def test_what_is_old_stays_after_what_is_not(
    engine: AsyncEngine, sql: Connection, settings: Settings, session_id: int
) -> None:
    for last, hours in ((3, 73), (4, 71), (6, 73)):
        await add_events(sql, session_id, last, timedelta(hours=hours))
    await set_cursors(sql, log=6, broker=6)
    await keeper.step(engine, settings)
    assert await kept(sql) == [4, 5, 6]


@pytest.mark.parametrize("first_ages", [((3, 73), (4, -100)), ((4, -100),)])
async def test_an_event_of_the_future_keeps_nothing(
    engine: AsyncEngine,
    sql: Connection,
    settings: Settings,
    session_id: int,
    first_ages: tuple[tuple[int, int], ...],
) -> None:
    for last, hours in (*first_ages, (6, 73)):
        await add_events(sql, session_id, last, timedelta(hours=hours))
    await set_cursors(sql, log=6, broker=6)
    await keeper.step(engine, settings)
    assert await kept(sql) == []


async def test_events_without_a_number_stay_however_old_they_are(
    engine: AsyncEngine, sql: Connection, settings: Settings, session_id: int
) -> None:
    await add_events(sql, session_id, 3)
    await sql.execute("update events set number = null where number = 2")
    await set_cursors(sql, log=3)
    await keeper.step(engine, settings)
    assert await sql.fetchval("select count(*) from events") == 1


@pytest.mark.parametrize("cursors", [{}, {"log": 9, "cache": 9, "broker": 0}], ids=["no cursor", "a stuck cursor"])
async def test_without_a_cursor_or_with_a_stuck_one_nothing_is_lost(
    engine: AsyncEngine, sql: Connection, settings: Settings, session_id: int, cursors: dict[str, int]
) -> None:
    await add_events(sql, session_id, 9)
    await set_cursors(sql, **cursors)
    await keeper.step(engine, settings)
    assert await kept(sql) == list(range(1, 10))


async def test_a_reader_that_was_dropped_keeps_nothing_any_more(
    engine: AsyncEngine, sql: Connection, settings: Settings, session_id: int
) -> None:
    await add_events(sql, session_id, 9)
    await set_cursors(sql, log=9, cache=9, broker=0)
    assert await cursors.drop_cursor(sql, "broker")
    await keeper.step(engine, settings)
    assert await kept(sql) == []


async def test_keeper_removes_a_bounded_batch_and_asks_for_more(
    engine: AsyncEngine, sql: Connection, settings: Settings, session_id: int
) -> None:
    await add_events(sql, session_id, 2_500)
    await set_cursors(sql, log=2_500)
    found = []
    for wait in (0, 0, keeper.INTERVAL_SECONDS):
        assert await keeper.step(engine, settings) == wait
        found.append(len(await kept(sql)))
    assert found == [1_500, 500, 0]


async def test_two_keepers_at_once_do_not_wait_for_each_other(
    engine: AsyncEngine, sql: Connection, settings: Settings, session_id: int
) -> None:
    await add_events(sql, session_id, 9)
    await set_cursors(sql, log=9)
    async with sql.transaction():
        assert await event_log.trim(sql, 72, 4) == 4
        await keeper.step(engine, settings)
    assert await kept(sql) == []


async def test_keeper_reads_at_most_a_batch_of_a_young_log(sql: Connection, session_id: int) -> None:
    await add_events(sql, session_id, 5_000, timedelta(hours=1))
    await set_cursors(sql, log=5_000)
    await sql.execute("analyze events, cursors")
    explain = f"explain (analyze, format json) {event_log.TRIM_EVENTS}"
    (plan,) = json.loads(await sql.fetchval(explain, 72, 100))
    assert max(rows_read(plan["Plan"])) <= 100


def rows_read(node: dict[str, Any]) -> list[float]:
    """The number of rows that each node of the plan has read, filtered ones included."""
    own = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
    return [own * node["Actual Loops"], *(rows for child in node.get("Plans", []) for rows in rows_read(child))]


async def test_keeper_removes_old_sign_in_failures_in_batches(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    for count, age in ((1_500, FORGET_FAILURES_MINUTES + 1), (7, FORGET_FAILURES_MINUTES - 1)):
        await sql.execute(FAILURES, count, timedelta(minutes=age))
    found = []
    for wait in (0, keeper.INTERVAL_SECONDS):
        assert await keeper.step(engine, settings) == wait
        found.append(await sql.fetchval("select count(*) from sign_in_failures"))
    assert found == [507, 7]
