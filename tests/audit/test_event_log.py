"""The log is compared with the ledger: missing events are a fault unless the keeper may have removed them, and what
can't be compared is reported as such.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import Postgres
from service.audit import event_log
from service.audit.event_log import LogCheck
from service.audit.slices import Limits, Slice
from service.database import Connection
from service.events.log import trim
from service.events.numbering import number_committed
from service.ledger.settling import settle
from service.reservation import State
from service.settings import Settings
from tests.conftest import EMPTY_TABLES
from tests.stage.audits import do_round, faulty
from tests.stage.factories import Account, make_customers, make_session, settle_of
from tests.stage.forcing import give

pytestmark = pytest.mark.oldest_postgresql

HELD = 3
UNCOMPARED = Slice([], 0, None, unlooked=1)
AS_THEIR_EVENTS_SAY = """
update reservations set created_at = events.at
from events
where reservation_id = reservations.id
and kind = 'reservation.held'
"""


def check_log(**limits: Any) -> LogCheck:
    """A pass through a log that is kept for 72 hours."""
    return LogCheck(72, Limits(**limits))


async def read(check: LogCheck, sql: Connection) -> None:
    """Comes to the end of the log."""
    while not check.is_read:
        await check.look(sql, 0)


async def decide(check: LogCheck, sql: Connection) -> set[str | None]:
    """The reservations of the faults, of a log that could be compared."""
    await read(check, sql)
    decided = await check.look(sql, 0)
    assert (decided.last, decided.unlooked) == (None, 0)
    return {fault.reservation_id for fault in decided.faults}


@dataclass(frozen=True, slots=True)
class Stage:
    """Three reservations, with their events, in a log whose first event was an hour before them."""

    sql: Connection
    customer: Account
    seats: list[int]
    ids: list[UUID]

    async def number(self) -> None:
        """Numbers each committed event."""
        async with self.sql.transaction():
            await number_committed(self.sql, 100)

    async def pay(self) -> None:
        """Confirms the reservations."""
        async with self.sql.transaction():
            await settle(self.sql, [settle_of(id_, State.CONFIRMED) for id_ in self.ids])
        await self.number()

    async def age(self, hours: int, first: int = 0, last: int = 1_000) -> None:
        """The events of these numbers were so long before."""
        move = "update events set at = at - make_interval(hours => $1) where number between $2 and $3"
        await self.sql.execute(move, hours, first, last)


@pytest.fixture
async def stage(sql: Connection, settings: Settings) -> AsyncIterator[Stage]:
    """Three holds. The faults of a test are gone after it."""
    (customer,) = await make_customers(sql, settings, 1)
    seats = list((await make_session(sql, settings)).seat_ids)
    staged = Stage(sql, customer, seats, [await give(sql, customer, seat) for seat in seats[:HELD]])
    await staged.number()
    await staged.age(1, last=1)
    yield staged
    await sql.execute(EMPTY_TABLES)


@pytest.fixture
async def paid(stage: Stage) -> Stage:
    """The session, three holds and three payments, an hour and two minutes from each event to the next."""
    await stage.pay()
    await stage.sql.execute("update events set at = now() - make_interval(mins => (8 - number::int) * 62)")
    await stage.sql.execute(AS_THEIR_EVENTS_SAY)
    return stage


@pytest.mark.parametrize("rows", [1, 2, 3, 1_000])
@pytest.mark.parametrize(("gone", "named"), [((3,), {0}), ((4,), {1}), ((3, 4), {0}), ((6,), {0, 1}), ((7,), {1, 2})])
async def test_a_gap_is_a_fault_of_the_reservation_before_it(  # noqa: PLR0913, PLR0917 - fixtures
    engine: AsyncEngine, settings: Settings, paid: Stage, gone: tuple[int, ...], named: set[int], rows: int
) -> None:
    await paid.sql.execute("delete from events where number = any($1::bigint[])", gone)
    tally = await do_round(engine, settings, rows=rows)
    # Of the ends that are gone it is also known that the ledger has them.
    assert faulty(tally) == {"log": {paid.ids[n] for n in named}}
    assert (tally.violations["log"].count, tally.unlooked) == (len(named), {})


async def test_a_missing_end_of_a_new_log_is_not_compared(stage: Stage) -> None:
    await stage.sql.execute("update events set at = clock_timestamp()")
    await stage.sql.execute("delete from events where number = 4")
    check = check_log()
    await read(check, stage.sql)
    assert await check.look(stage.sql, 0) == UNCOMPARED


@pytest.fixture
async def keepers(postgres: Postgres, paid: Stage) -> AsyncIterator[list[asyncpg.Connection]]:  # noqa: ARG001 - first
    """Connections of two keepers."""
    connections = [await asyncpg.connect(postgres.url()) for _ in range(2)]
    yield connections
    for connection in connections:
        await connection.close()


async def test_racing_keepers_cause_no_fault(sql: Connection, keepers: list[asyncpg.Connection]) -> None:
    # They were configured to keep less than we are.
    other = keepers[0].transaction()
    await other.start()
    assert await trim(keepers[0], 2, 4) == 4
    assert await trim(keepers[1], 2, 100) == 2
    check = check_log()
    await read(check, sql)
    await other.commit()
    assert await check.look(sql, 0) == UNCOMPARED
    assert await decide(check_log(), sql) == set()


async def test_a_keeper_that_dies_causes_no_fault(paid: Stage, keepers: list[asyncpg.Connection]) -> None:
    await paid.age(72, last=6)
    await paid.sql.execute(AS_THEIR_EVENTS_SAY)
    dying = keepers[0].transaction()
    await dying.start()
    assert await trim(keepers[0], 72, 4) == 4
    assert await trim(keepers[1], 72, 100) == 2
    await dying.rollback()
    assert await decide(check_log(), paid.sql) == set()


async def test_a_log_that_is_trimmed_before_we_read_it_is_not_compared(paid: Stage) -> None:
    check = check_log(rows=4)
    for _ in range(2):
        await check.look(paid.sql, 0)
    await paid.age(100, last=6)
    assert await trim(paid.sql, 72, 100) == 6
    await read(check, paid.sql)
    assert await check.look(paid.sql, 0) == UNCOMPARED


@pytest.mark.parametrize("later", [0, 1])
async def test_a_log_that_is_trimmed_after_we_read_it_is_not_compared(stage: Stage, later: int) -> None:
    check = check_log()
    await read(check, stage.sql)
    await stage.pay()
    await stage.age(100)
    assert await trim(stage.sql, 72, 100) == 7
    for seat in stage.seats[HELD : HELD + later]:
        await give(stage.sql, stage.customer, seat)
    await stage.number()
    assert await check.look(stage.sql, 0) == UNCOMPARED


async def test_another_log_is_not_compared(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    check = check_log()
    await read(check, stage.sql)
    await stage.sql.execute("update reservations set state = 'CANCELLED', settled_at = now()")
    assert len(await decide(check_log(), stage.sql)) == HELD
    # As where a standby has taken over.
    monkeypatch.setattr(event_log, "READ_LOG_NAME", "select 'another'")
    assert await check.look(stage.sql, 0) == UNCOMPARED


@pytest.mark.parametrize(("suspects", "is_compared"), [(2, False), (3, True)])
async def test_no_more_suspects_than_the_limit_are_kept(stage: Stage, suspects: int, *, is_compared: bool) -> None:
    await stage.sql.execute("update reservations set state = 'CANCELLED', settled_at = now()")
    check = check_log(suspects=suspects)
    await read(check, stage.sql)
    decided = await check.look(stage.sql, 0)
    assert (len(decided.faults), decided.unlooked) == ((HELD, 0) if is_compared else (0, 1))


@pytest.mark.parametrize("is_numbered", [True, False])
@pytest.mark.parametrize(("late_events", "is_compared"), [(2, False), (3, True)])
async def test_no_more_late_events_than_the_limit_are_read(
    stage: Stage, late_events: int, *, is_numbered: bool, is_compared: bool
) -> None:
    await stage.sql.execute("update seats set version = 7 where id = $1", stage.seats[0])
    check = check_log(late_events=late_events)
    await read(check, stage.sql)
    for seat in stage.seats[HELD : HELD + 2]:
        await give(stage.sql, stage.customer, seat)
    if is_numbered:
        await stage.number()
    decided = await check.look(stage.sql, 0)
    assert (len(decided.faults), decided.unlooked) == ((1, 0) if is_compared else (0, 1))


async def unmention(stage: Stage) -> None:
    """The log has only events of the first reservation."""
    await stage.pay()
    await stage.sql.execute(
        "update events set reservation_id = $1, kind = 'reservation.confirmed', seats = '[]'"
        " where reservation_id is not null",
        stage.ids[0],
    )


@pytest.mark.parametrize(("newest", "named"), [(1, {2}), (2, {1, 2}), (1_000, {1, 2})])
async def test_the_newest_reservations_must_be_in_the_log(stage: Stage, newest: int, named: set[int]) -> None:
    await unmention(stage)
    assert await decide(check_log(newest_reservations=newest), stage.sql) == {str(stage.ids[n]) for n in named}


async def test_reservations_before_the_log_need_not_be_in_it(stage: Stage) -> None:
    await unmention(stage)
    await stage.sql.execute(
        "update reservations set created_at = created_at - interval '2 h' where id = $1", stage.ids[1]
    )
    assert await decide(check_log(), stage.sql) == {str(stage.ids[2])}
