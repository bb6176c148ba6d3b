"""The audit of a log of which events are removed meanwhile, or that is another one by now: never a fault."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID, uuid4

import orjson
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from expirer.loops.audit import Audit
from service.audit import log as logaudit
from service.audit import log_gaps as loggaps
from service.audit import log_untold as untold
from service.audit.log import LogAudit
from service.audit.log_newest import Newest
from service.audit.log_untold import check_open
from service.audit.verdicts import Tally
from service.database import Connection
from service.events import log as event_log
from service.events.numbering import number_committed
from service.ledger.settling import settle
from service.reservation import State
from service.settings import Settings
from tests.conftest import EMPTY_TABLES
from tests.stage.audits import last_verdict
from tests.stage.factories import Account, make_customers, make_session, settle_of
from tests.stage.forcing import give

pytestmark = pytest.mark.oldest_postgresql

GIVE_NUMBERS_ONCE_MORE = """
delete from events where number > 1;
update seats set state = 'AVAILABLE', reservation_id = null, version = 1;
delete from reservations;
update cursors set number = 1
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """Three holds of a log that began long ago, which tells of them with its last numbers."""

    engine: AsyncEngine
    sql: Connection
    settings: Settings
    customer: Account
    seats: list[int]
    held: list[UUID]

    async def number(self) -> None:
        """Numbers everything that is committed."""
        async with self.sql.transaction():
            await number_committed(self.sql, 100)

    async def pay(self) -> None:
        """All holds, as the log tells."""
        async with self.sql.transaction():
            await settle(self.sql, [settle_of(id_, State.CONFIRMED) for id_ in self.held])
        await self.number()

    async def trim(self) -> None:
        """Removes all that the log has told so far."""
        await self.sql.execute("update events set at = at - interval '100 hours'")
        assert await event_log.trim(self.sql, 72, 100) > 0

    async def begin(self, next_pass: str) -> Audit:
        """A round that has come so far."""
        audit = Audit(self.engine, self.settings, "first", None)
        await audit.step()
        assert audit._turn is not None
        while audit._turn.round.progress().place.next_pass != next_pass:
            await audit.step()
        return audit

    async def end(self, audit: Audit) -> Tally:
        """What a round finds that goes on."""
        while audit._turn is not None:
            await audit.step()
        return (await last_verdict(self.sql)).tally

    async def take_up(self, audit: Audit) -> Audit:
        """The round, by another replica."""
        await audit.close()
        other = Audit(self.engine, self.settings, "other", None)
        await other.step()
        return other


@pytest.fixture
async def stage(engine: AsyncEngine, sql: Connection, settings: Settings) -> AsyncIterator[Stage]:
    """What a test has broken is gone after it."""
    (customer,) = await make_customers(sql, settings, 1)
    seats = list((await make_session(sql, settings)).seat_ids)
    held = [await give(sql, customer, seat) for seat in seats[:3]]
    staged = Stage(engine, sql, settings, customer, seats, held)
    await staged.number()
    await sql.execute("update events set at = at - interval '1 hour'")
    yield staged
    await sql.execute(EMPTY_TABLES)


def take_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the log of a standby that has taken over."""
    for module in (logaudit, untold):
        monkeypatch.setattr(module, "READ_LOG_NAME", "select 'another'")


@pytest.mark.parametrize("then_told", [0, 1])
@pytest.mark.parametrize("is_another_replica", [False, True])
async def test_open_holds_are_not_compared_with_a_log_whose_end_of_them_was_removed(
    stage: Stage, then_told: int, *, is_another_replica: bool
) -> None:
    audit = await stage.begin("open holds")
    await stage.pay()
    await stage.trim()
    for seat in stage.seats[3 : 3 + then_told]:
        await give(stage.sql, stage.customer, seat)
    await stage.number()
    if is_another_replica:
        audit = await stage.take_up(audit)
    tally = await stage.end(audit)
    assert (tally.violations, tally.unlooked) == ({}, {"events": 3})


async def test_a_log_all_of_which_was_removed_while_it_was_read_says_nothing_of_the_holds_it_told_of(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loggaps, "SLICE_MAX", 4)
    audit = await stage.begin("log")
    await audit.step()
    assert audit._turn is not None
    assert audit._turn.round.log.open == set(stage.held)
    await stage.pay()
    await stage.trim()
    tally = await stage.end(await stage.take_up(audit))
    assert (tally.violations, tally.unlooked) == ({}, {})


async def test_what_looked_wrong_is_no_fault_where_the_later_events_were_removed_before_they_were_read(
    stage: Stage,
) -> None:
    audit = await stage.begin("log")
    # Not told yet of what it will tell.
    await stage.sql.execute("update seats set version = 7 where id = $1", stage.seats[0])
    await audit.step()
    assert audit._turn is not None
    assert len(audit._turn.round.log.suspected) == 1
    await stage.pay()
    await stage.trim()
    tally = await stage.end(audit)
    assert tally.violations == {}
    assert tally.unlooked["events"] >= 1


@pytest.mark.parametrize(("ahead_max", "found", "unlooked"), [(2, set(), {"events": 1}), (3, {"log"}, {})])
async def test_what_looked_wrong_is_no_fault_where_too_many_later_events_wait_for_their_numbers(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, ahead_max: int, found: set[str], unlooked: dict[str, int]
) -> None:
    monkeypatch.setattr(logaudit, "AHEAD_MAX", ahead_max)
    await stage.sql.execute("update seats set version = 7 where id = $1", stage.seats[0])
    for seat in stage.seats[3:5]:
        await give(stage.sql, stage.customer, seat)
    tally = await stage.end(await stage.begin("log"))
    assert (set(tally.violations), dict(tally.unlooked)) == (found, unlooked)


async def test_numbers_that_a_log_of_another_name_gives_once_more_are_read_from_the_beginning(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loggaps, "SLICE_MAX", 2)
    audit = await stage.begin("log")
    await audit.step()
    assert audit._turn is not None
    assert audit._turn.round.log.last == 2
    # A standby without the last commits takes over, and holds are given anew.
    await stage.sql.execute(GIVE_NUMBERS_ONCE_MORE)
    take_another_name(monkeypatch)
    for seat in stage.seats[5:8]:
        await give(stage.sql, stage.customer, seat)
    await stage.number()
    tally = await stage.end(await stage.take_up(audit))
    assert (tally.violations, tally.unlooked) == ({}, {})


async def test_what_looked_wrong_in_a_log_of_another_name_is_no_fault(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = await stage.begin("log")
    await stage.sql.execute("update seats set version = 7 where id = $1", stage.seats[0])
    await audit.step()
    assert audit._turn is not None
    assert len(audit._turn.round.log.suspected) == 1
    await stage.sql.execute(GIVE_NUMBERS_ONCE_MORE)
    take_another_name(monkeypatch)
    tally = await stage.end(audit)
    assert (tally.violations, tally.unlooked) == ({}, {})


async def test_open_holds_of_which_too_many_were_known_are_compared_where_the_log_has_begun_anew_since(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loggaps, "SLICE_MAX", 4)
    audit = await stage.begin("log")
    await audit.step()
    with monkeypatch.context() as patched:
        patched.setattr(logaudit, "OPEN_MAX", 3)
        audit = await stage.take_up(audit)
    assert audit._turn is not None
    assert not audit._turn.round.log.has_all_open
    await stage.pay()
    await stage.trim()
    await give(stage.sql, stage.customer, stage.seats[5])
    await stage.number()
    tally = await stage.end(audit)
    assert (tally.violations, tally.unlooked) == ({}, {})


@pytest.mark.parametrize("given", [1, 3, 4])
async def test_open_holds_of_a_log_of_another_name_are_not_compared(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, given: int
) -> None:
    audit = await stage.begin("open holds")
    await stage.sql.execute(GIVE_NUMBERS_ONCE_MORE)
    take_another_name(monkeypatch)
    for seat in stage.seats[5 : 5 + given]:
        await give(stage.sql, stage.customer, seat)
    await stage.number()
    tally = await stage.end(await stage.take_up(audit))
    assert (tally.violations, tally.unlooked) == ({}, {"events": 3})


async def test_open_holds_of_a_log_that_the_release_before_has_read_are_not_compared(stage: Stage) -> None:
    audit = await stage.begin("open holds")
    await audit.close()
    await stage.sql.execute("update audits set round = round #- '{place,log,log}'")
    tally = await stage.end(await stage.take_up(Audit(stage.engine, stage.settings, "first", None)))
    assert (tally.violations, tally.unlooked) == ({}, {"events": 3})


def test_whoever_goes_on_with_the_log_knows_what_is_untold_and_the_open_holds_unless_they_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first_at = datetime(2030, 1, 2, 3, 4, 5, 678, UTC)
    newest = Newest(dict.fromkeys(uuid4() for _ in range(3)))
    log = LogAudit(17, first_at, {uuid4() for _ in range(3)}, log="this one", newest=newest)
    assert LogAudit.create(orjson.loads(orjson.dumps(log.known()))) == log
    monkeypatch.setattr(logaudit, "OPEN_MAX", 3)
    next_one = LogAudit.create(orjson.loads(orjson.dumps(log.known())))
    assert next_one == LogAudit(17, first_at, set(), has_all_open=False, log="this one", newest=newest)
    assert next_one.known()["open"] is None


async def test_the_log_is_not_asked_of_more_holds_than_open_max_nor_where_not_all_are_known(
    sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logaudit, "OPEN_MAX", 3)
    monkeypatch.setattr(untold, "CHECK_OPEN", "no statement")
    first_at = datetime(2030, 1, 2, tzinfo=UTC)
    for log, unlooked in (
        (LogAudit(17, first_at, {uuid4() for _ in range(3)}), 3),
        (LogAudit(17, first_at, has_all_open=False), 1),
    ):
        assert (await check_open(sql, log)).unlooked == unlooked
