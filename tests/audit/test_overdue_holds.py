"""A hold that was not ended is found soon; one that the sweep still has to end after an outage is not a fault."""

from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from expirer.loops import sweep
from service.audit import ledger
from service.audit.ledger import OverdueHolds
from service.audit.slices import Limits, Slice
from service.database import Connection
from service.errors import Busy
from service.settings import Settings
from tests.stage.audits import begin_round, faulty
from tests.stage.factories import make_customer, make_session
from tests.stage.forcing import give

pytestmark = pytest.mark.oldest_postgresql

AGAIN = Slice([], 0, 0)
LET_IT_BE_LONG_OVERDUE = """
update reservations
set created_at = created_at - interval '100 s', expires_at = expires_at - interval '100 s'
where id = $1
"""


async def make_overdue(sql: Connection, settings: Settings) -> UUID:
    """A hold that should have ended long ago."""
    id_ = await give(sql, await make_customer(sql, settings), (await make_session(sql, settings)).seat_ids[0])
    await sql.execute(LET_IT_BE_LONG_OVERDUE, id_)
    return id_


@pytest.fixture
async def overdue(sql: Connection, settings: Settings) -> UUID:
    """Such a hold."""
    return await make_overdue(sql, settings)


async def test_only_a_hold_that_stays_overdue_is_a_fault(sql: Connection, settings: Settings, overdue: UUID) -> None:
    now = 100.0
    holds = OverdueHolds(Limits(stuck_seconds=10), lambda: now)
    assert await holds.look(sql, 0) == AGAIN
    await make_overdue(sql, settings)
    now += 9
    assert await holds.look(sql, 0) == AGAIN
    now += 1
    looked = await holds.look(sql, 0)
    assert [fault.reservation_id for fault in looked.faults] == [str(overdue)], "the other is the next round's"
    assert looked.last is None


@pytest.mark.usefixtures("overdue")
async def test_a_hold_that_the_sweep_ends_is_not_a_fault(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    holds = OverdueHolds(Limits(stuck_seconds=10), lambda: 100.0)
    assert await holds.look(sql, 0) == AGAIN
    await sweep.step(engine, settings)
    assert await holds.look(sql, 0) == Slice([], 0, None)


async def test_a_failed_look_is_repeated(
    engine: AsyncEngine, settings: Settings, overdue: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    round_ = begin_round(engine, settings)
    with monkeypatch.context() as patched:
        slow = ledger.CHECK_OVERDUE.replace(
            "from reservations", "from pg_cancel_backend(pg_backend_pid()), reservations"
        )
        patched.setattr(ledger, "CHECK_OVERDUE", slow)
        with pytest.raises(Busy):
            await round_.advance()
    await round_.advance()
    assert faulty(round_.verdict) == {"overdue": {overdue}}
