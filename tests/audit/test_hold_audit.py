"""A hold that nobody ends is found soon; one that the sweep is still to end after an outage is no fault."""

from itertools import count
from types import SimpleNamespace
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from expirer.loops import sweep
from expirer.loops.audit import Audit
from service.audit import holds as holdaudit
from service.audit import rounds
from service.audit.holds import STUCK_SECONDS, HoldAudit
from service.audit.rounds import Round
from service.audit.verdicts import Fault
from service.database import Connection
from service.errors import Busy, BusyReason, DatabaseAway
from service.settings import Settings
from tests.stage.audits import last_verdict
from tests.stage.factories import make_customer, make_session
from tests.stage.forcing import give
from tests.stage.holdings import make_holds

pytestmark = pytest.mark.oldest_postgresql

LET_IT_BE_LONG_OVERDUE = """
update reservations
set created_at = created_at - interval '100 s', expires_at = expires_at - interval '100 s'
where id = $1
"""


@pytest.fixture
async def overdue(sql: Connection, settings: Settings) -> UUID:
    """A hold that should have ended long ago."""
    id_ = await give(sql, await make_customer(sql, settings), (await make_session(sql, settings)).seat_ids[0])
    await sql.execute(LET_IT_BE_LONG_OVERDUE, id_)
    return id_


async def test_a_hold_is_a_fault_once_it_was_seen_to_be_overdue_for_long_enough(sql: Connection, overdue: UUID) -> None:
    holds = HoldAudit()
    first = await holds.look(sql, 100)
    assert (first.faults, first.checked) == ([], 1)
    assert (await holds.look(sql, 100 + STUCK_SECONDS - 1)).faults == []
    stuck = await holds.look(sql, 100 + STUCK_SECONDS)
    session_id = await sql.fetchval("select id from sessions")
    assert (stuck.faults, stuck.checked) == ([Fault("overdue", None, str(overdue), session_id)], 0)
    again = await holds.look(sql, 100 + STUCK_SECONDS + 1)
    assert again.faults == stuck.faults, "nobody has noted it"
    assert holds.waits(since=100)
    holds.note(again)
    assert (await holds.look(sql, 100 + STUCK_SECONDS + 2)).faults == [], "it is told once"


async def test_a_hold_that_comes_to_be_overdue_later_has_its_own_time(
    sql: Connection, settings: Settings, overdue: UUID
) -> None:
    holds = HoldAudit()
    await holds.look(sql, 100)
    later = await give(sql, await make_customer(sql, settings), (await make_session(sql, settings)).seat_ids[0])
    await sql.execute(LET_IT_BE_LONG_OVERDUE, later)
    await holds.look(sql, 105)
    first = await holds.look(sql, 100 + STUCK_SECONDS)
    assert [fault.reservation_id for fault in first.faults] == [str(overdue)]
    holds.note(first)
    assert holds.waits(since=105)
    assert not holds.waits(since=104), "what was not overdue then is the next round's"
    second = await holds.look(sql, 105 + STUCK_SECONDS)
    assert [fault.reservation_id for fault in second.faults] == [str(later)]
    holds.note(second)
    assert not holds.waits(since=105)


async def test_after_a_time_without_a_look_the_sweep_has_its_time_anew(sql: Connection, overdue: UUID) -> None:
    holds = HoldAudit()
    await holds.look(sql, 100)
    back = 101 + STUCK_SECONDS
    assert (await holds.look(sql, back)).faults == [], "PostgreSQL may have been away"
    await holds.look(sql, back + 5)
    assert [fault.reservation_id for fault in (await holds.look(sql, back + STUCK_SECONDS)).faults] == [str(overdue)]


async def test_a_round_waits_for_the_sweep_which_ends_what_an_outage_has_left(
    engine: AsyncEngine, sql: Connection, settings: Settings, overdue: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdaudit, "LOOK_SECONDS", 0)
    monkeypatch.setattr(holdaudit, "STUCK_SECONDS", 3_600)
    audit = Audit(engine, settings, "test", None)
    await audit.step()
    while audit._turn is not None and audit._turn.round.passes:
        await audit.step()
    for _ in range(3):
        await audit.step()
        assert audit._turn is not None, f"the sweep has its time for {overdue}"
    await sweep.step(engine, settings)
    await audit.step()
    assert audit._turn is None
    assert (await last_verdict(sql)).tally.violations == {}


async def test_a_round_ends_in_its_time_though_more_and_more_holds_come_to_be_overdue(
    engine: AsyncEngine, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count(100)
    monkeypatch.setattr(rounds, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    round_ = Round.create(engine, None, 72)
    passes = len(round_.passes)
    for id_ in await make_holds(sql, settings, passes - 1 + int(STUCK_SECONDS)):
        await sql.execute(LET_IT_BE_LONG_OVERDUE, id_)
        assert not await round_.advance()
    assert await round_.advance(), "what comes later is the next round's"
    assert round_.counts["overdue"] == passes


async def test_a_look_at_the_ledger_that_takes_too_long_is_broken_off_and_is_the_next_one(
    engine: AsyncEngine, settings: Settings, overdue: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = holdaudit.CHECK_OVERDUE.replace("from reservations", "from pg_sleep(0.5), reservations")
    monkeypatch.setattr(holdaudit, "CHECK_OVERDUE", slow)
    audit = Audit(engine, settings, "test", None)
    await audit.step()
    assert audit._turn is not None
    with monkeypatch.context() as patched:
        patched.setattr("service.audit.ledger.BOUND_STATEMENTS", "set local statement_timeout = 50")
        with pytest.raises(Busy) as broken_off:
            await audit.step()
    assert broken_off.value.reason is BusyReason.STATEMENT
    assert (audit._turn.round.holds.seen, audit._turn.round.passes[0].name) == ({}, "seats")
    await audit.step()
    assert audit._turn.round.holds.seen.keys() == {overdue}
    await audit.close()


async def test_a_hold_that_nobody_ends_is_found_before_a_long_round_comes_to_its_end(
    engine: AsyncEngine, settings: Settings, overdue: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdaudit, "STUCK_SECONDS", 0)
    audit = Audit(engine, settings, "test", None)
    await audit.step()
    await audit.step()
    assert audit._turn is not None
    assert audit._turn.round.passes
    assert [fault.reservation_id for fault in audit._turn.round.examples["overdue"]] == [str(overdue)]
    await audit.close()


async def test_a_hold_that_nobody_ends_is_found_though_the_connection_goes_while_it_is_looked_at(
    engine: AsyncEngine, sql: Connection, settings: Settings, overdue: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdaudit, "LOOK_SECONDS", 0)
    monkeypatch.setattr(holdaudit, "STUCK_SECONDS", 0)
    audit = Audit(engine, settings, "test", None)
    await audit.step()

    async def lose(_: Connection) -> None:
        raise ConnectionResetError

    with monkeypatch.context() as patched:
        patched.setattr(rounds, "roll_back", lose)
        with pytest.raises(DatabaseAway):
            await audit.step()
    while audit._turn is not None:
        await audit.step()
    (found,) = (await last_verdict(sql)).tally.violations.values()
    assert (found.count, found.examples[0]["reservation_id"]) == (1, str(overdue))
