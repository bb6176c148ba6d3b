"""The audit of a log of which events are gone: a fault, unless they were removed as the keeper may."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import cast

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import Postgres
from expirer.loops.audit import Audit
from service.audit import log as logaudit
from service.audit import log_gaps as loggaps
from service.audit.log_gaps import Stretch
from service.database import Connection
from service.events import log as event_log
from service.events.numbering import number_committed
from service.ledger.settling import settle
from service.reservation import State
from service.settings import Settings
from tests.conftest import EMPTY_TABLES
from tests.stage.audits import do_round, faulty, last_verdict
from tests.stage.factories import make_customers, make_session, settle_of
from tests.stage.forcing import give

pytestmark = pytest.mark.oldest_postgresql

HELD = 3
AS_THEIR_EVENTS_TELL = """
update reservations set created_at = events.at
from events
where reservation_id = reservations.id
and kind = 'reservation.held'
"""


@pytest.fixture
async def held(sql: Connection, settings: Settings) -> AsyncIterator[list[object]]:
    """Reservations that are paid. The log tells of their session, then of the holds, then of the payments, an hour and
    two minutes from each to the next. What a test has broken is gone after it.
    """
    (customer,) = await make_customers(sql, settings, 1)
    ids = [await give(sql, customer, seat) for seat in (await make_session(sql, settings)).seat_ids[:HELD]]
    async with sql.transaction():
        await settle(sql, [settle_of(id_, State.CONFIRMED) for id_ in ids])
        await number_committed(sql, 100)
    await sql.execute("update events set at = at - make_interval(mins => (8 - number::int) * 62)")
    await sql.execute(AS_THEIR_EVENTS_TELL)
    yield [*ids]
    await sql.execute(EMPTY_TABLES)


@pytest.fixture
async def keepers(postgres: Postgres, held: list[object]) -> AsyncIterator[list[asyncpg.Connection]]:  # noqa: ARG001 - first
    """Connections of two keepers."""
    connections = [await asyncpg.connect(postgres.url()) for _ in range(2)]
    yield connections
    for connection in connections:
        await connection.close()


@pytest.mark.parametrize("slice_max", [1, 2, 3, 1_000])
@pytest.mark.parametrize("gone", [(3,), (4,), (3, 4), (7,)])
async def test_events_that_are_gone_are_a_fault_of_the_reservation_before_them(  # noqa: PLR0913, PLR0917 - fixtures
    engine: AsyncEngine,
    sql: Connection,
    settings: Settings,
    held: list[object],
    monkeypatch: pytest.MonkeyPatch,
    gone: tuple[int, ...],
    slice_max: int,
) -> None:
    monkeypatch.setattr(loggaps, "SLICE_MAX", slice_max)
    await sql.execute("delete from events where number = any($1::bigint[])", gone)
    # Of the seventh one it is also known what it told.
    expected = {held[1], held[2]} if gone == (7,) else {held[gone[0] - 3]}
    assert faulty(await do_round(engine, sql, settings)) == {"log": expected}
    tally = (await last_verdict(sql)).tally
    assert tally.violations["log"].count == len(expected)
    assert tally.unlooked == {}


async def test_the_end_of_a_hold_that_is_gone_is_named_too(
    engine: AsyncEngine, sql: Connection, settings: Settings, held: list[object]
) -> None:
    await sql.execute("delete from events where number = 6")
    assert faulty(await do_round(engine, sql, settings)) == {"log": {held[0], held[1]}}


async def test_where_the_last_event_is_gone_and_none_before_it_was_kept_for_sure_open_holds_are_not_compared(
    engine: AsyncEngine, sql: Connection, settings: Settings, held: list[object]
) -> None:
    await sql.execute("update events set at = clock_timestamp()")
    await sql.execute("delete from events where number = 7")
    assert await do_round(engine, sql, settings) == {}
    assert (await last_verdict(sql)).tally.unlooked == {"events": 1}
    assert len(held) == HELD


@pytest.mark.parametrize("is_another_log", [False, True])
async def test_what_one_of_two_keepers_has_removed_before_the_other_is_no_fault(  # noqa: PLR0913 - fixtures
    engine: AsyncEngine,
    sql: Connection,
    settings: Settings,
    keepers: list[asyncpg.Connection],
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_another_log: bool,
) -> None:
    # This expirer was told to keep more than they were.
    audit = await come_to_the_log(Audit(engine, settings, "test", None))
    other = keepers[0].transaction()
    await other.start()
    assert await event_log.trim(keepers[0], 2, 4) == 4
    assert await event_log.trim(keepers[1], 2, 100) == 2
    await audit.step()
    if is_another_log:
        monkeypatch.setattr(logaudit, "READ_LOG_NAME", "select 'another'")
        await audit.step()
    await other.commit()
    assert await end(audit, sql) == {}


async def test_what_a_keeper_that_has_died_was_to_remove_before_another_is_no_fault(
    engine: AsyncEngine, sql: Connection, settings: Settings, keepers: list[asyncpg.Connection]
) -> None:
    await sql.execute("update events set at = at - interval '72 hours' where number < 7")
    await sql.execute(AS_THEIR_EVENTS_TELL)
    dying = keepers[0].transaction()
    await dying.start()
    assert await event_log.trim(keepers[0], 72, 4) == 4
    assert await event_log.trim(keepers[1], 72, 100) == 2
    await dying.rollback()
    assert await end(await come_to_the_log(Audit(engine, settings, "test", None)), sql) == {}


async def test_what_the_release_before_has_removed_by_the_age_of_each_is_no_fault(
    engine: AsyncEngine, sql: Connection, settings: Settings, held: list[object]
) -> None:
    # Of the first events that are kept the last one tells of the earliest moment, and the next two are gone.
    await sql.execute(
        "update events set at = clock_timestamp() - interval '71 hours 59 minutes' - number * interval '1 s'"
        " where number < 5"
    )
    await sql.execute(AS_THEIR_EVENTS_TELL)
    await sql.execute("delete from events where number = any(array[1, 5, 6])")
    assert len(held) == HELD
    assert await end(await come_to_the_log(Audit(engine, settings, "test", None)), sql) == {}


@dataclass(slots=True)
class BetweenTwoLooks:
    """A connection on which all events are removed after those of a slice were read."""

    sql: Connection

    async def fetch(self, query: str, *given: object) -> list[asyncpg.Record]:
        """Reads the slice."""
        rows: list[asyncpg.Record] = await self.sql.fetch(query, *given)
        await self.sql.execute("delete from events")
        return rows

    async def fetchrow(self, query: str, *given: object) -> asyncpg.Record | None:
        """Looks beyond it."""
        return await self.sql.fetchrow(query, *given)


async def test_a_slice_that_was_read_before_all_of_it_was_removed_is_looked_at_and_nothing_is_missing_after_it(
    sql: Connection, held: list[object]
) -> None:
    await sql.execute("delete from events where number = 7")
    stretch = await Stretch.read(cast("Connection", BetweenTwoLooks(sql)), 0, 72)
    assert [row["number"] for row in stretch.rows] == [1, 2, 3, 4, 5, 6]
    assert (stretch.cut_at, stretch.is_emptied, stretch.after) == (None, False, 0)
    assert len(held) == HELD


async def come_to_the_log(audit: Audit) -> Audit:
    """A round that looks at it next."""
    await audit.step()
    assert audit._turn is not None
    while audit._turn.round.progress().place.next_pass != "log":
        await audit.step()
    return audit


async def end(audit: Audit, sql: Connection) -> dict[str, set[object]]:
    """What the round finds."""
    while audit._turn is not None:
        await audit.step()
    return faulty((await last_verdict(sql)).tally.violations)
