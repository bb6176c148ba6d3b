"""A hold that was not ended is found soon; one that the sweep still has to end after an outage is not a fault."""

from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from expirer.loops import sweep
from service.audit import ledger, slices
from service.audit.ledger import OverdueHolds
from service.audit.slices import Limits
from service.audit.verdicts import Fault
from service.database import Connection
from service.errors import Busy, DatabaseAway
from service.settings import Settings
from tests.stage.audits import begin_round, do_round
from tests.stage.factories import make_customer, make_session
from tests.stage.forcing import give

pytestmark = pytest.mark.oldest_postgresql

LET_IT_BE_LONG_OVERDUE = """
update reservations
set created_at = created_at - interval '100 s', expires_at = expires_at - interval '100 s'
where id = $1
"""
STUCK_SECONDS = Limits().stuck_seconds


@pytest.fixture
async def overdue(sql: Connection, settings: Settings) -> UUID:
    """A hold that should have ended long ago."""
    id_ = await give(sql, await make_customer(sql, settings), (await make_session(sql, settings)).seat_ids[0])
    await sql.execute(LET_IT_BE_LONG_OVERDUE, id_)
    return id_


class Clock:
    """Stands where the test has put it."""

    now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A new one."""
    return Clock()


async def look_for(holds: OverdueHolds, clock: Clock, sql: Connection, seconds: float) -> list[Fault]:
    """Looks each second; the faults that are found in this time."""
    until = clock.now + seconds
    while True:
        looked = await holds.look(sql, 0)
        if looked.last is None or clock.now >= until:
            return list(looked.faults)
        clock.now += 1


async def test_a_hold_that_stays_overdue_is_a_fault(sql: Connection, clock: Clock, overdue: UUID) -> None:
    holds = OverdueHolds(Limits(), clock)
    assert await look_for(holds, clock, sql, STUCK_SECONDS - 1) == []
    session_id = await sql.fetchval("select id from sessions")
    assert await look_for(holds, clock, sql, 1) == [Fault("overdue", None, str(overdue), session_id)]


async def test_a_hold_that_the_sweep_ends_is_not_a_fault(
    engine: AsyncEngine, sql: Connection, settings: Settings, clock: Clock, overdue: UUID
) -> None:
    holds = OverdueHolds(Limits(), clock)
    assert await look_for(holds, clock, sql, STUCK_SECONDS - 1) == []
    assert holds.seen.keys() == {overdue}
    await sweep.step(engine, settings)
    looked = await holds.look(sql, 0)
    assert (looked.faults, looked.last) == ([], None)


async def test_a_hold_that_is_overdue_later_is_the_next_rounds(
    sql: Connection, settings: Settings, clock: Clock, overdue: UUID
) -> None:
    holds = OverdueHolds(Limits(), clock)
    await look_for(holds, clock, sql, 5)
    later = await give(sql, await make_customer(sql, settings), (await make_session(sql, settings)).seat_ids[0])
    await sql.execute(LET_IT_BE_LONG_OVERDUE, later)
    faults = await look_for(holds, clock, sql, STUCK_SECONDS)
    assert [fault.reservation_id for fault in faults] == [str(overdue)]


async def test_after_an_outage_the_sweep_gets_its_time_again(sql: Connection, clock: Clock, overdue: UUID) -> None:
    holds = OverdueHolds(Limits(), clock)
    await look_for(holds, clock, sql, STUCK_SECONDS - 1)
    clock.now += STUCK_SECONDS + 1
    assert await look_for(holds, clock, sql, STUCK_SECONDS - 1) == []
    assert [fault.reservation_id for fault in await look_for(holds, clock, sql, 1)] == [str(overdue)]


async def test_a_slow_look_is_cancelled_and_repeated(
    engine: AsyncEngine, settings: Settings, overdue: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    round_ = begin_round(engine, settings, statement_ms=50)
    with monkeypatch.context() as patched:
        slow = ledger.CHECK_OVERDUE.replace("from reservations", "from pg_sleep(0.5), reservations")
        patched.setattr(ledger, "CHECK_OVERDUE", slow)
        with pytest.raises(Busy):
            await round_.advance()
    assert round_.passes[0].what == "holds"
    await round_.advance()
    assert [fault.reservation_id for fault in round_.examples["overdue"]] == [str(overdue)]


async def test_a_lost_connection_hides_no_fault(
    engine: AsyncEngine, settings: Settings, overdue: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lose(_: Connection) -> None:
        raise ConnectionResetError

    round_ = begin_round(engine, settings)
    with monkeypatch.context() as patched:
        patched.setattr(slices, "roll_back", lose)
        with pytest.raises(DatabaseAway):
            await round_.advance()
    await round_.advance()
    assert [fault.reservation_id for fault in round_.examples["overdue"]] == [str(overdue)]
    assert (await do_round(engine, settings)).violations["overdue"].count == 1
