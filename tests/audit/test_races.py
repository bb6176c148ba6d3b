"""The self-audit of a busy ledger: whatever is committed between two of its looks, nothing of that is a fault."""

import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import Postgres
from service.audit import ledger as audit
from service.audit import log as logaudit
from service.audit import log_gaps as loggaps
from service.audit import log_untold as untold
from service.audit.log import LogAudit
from service.database import Connection
from service.events import log as event_log
from service.events.numbering import number_committed
from service.ledger.expiring import settle_overdue
from service.ledger.settling import settle
from service.reservation import State
from service.settings import Settings
from tests.conftest import EMPTY_TABLES
from tests.stage.audits import do_round
from tests.stage.factories import Account, make_customers, make_overdue, make_session, settle_of
from tests.stage.forcing import give

LOOKS = ("fetch", "fetchrow", "fetchval", "execute")


@pytest.fixture(autouse=True)
def _small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many looks, so that much can happen between them."""
    monkeypatch.setattr(audit, "SLICE_MAX", 3)
    monkeypatch.setattr(loggaps, "SLICE_MAX", 3)


@pytest.fixture
async def elsewhere(postgres: Postgres, sql: Connection) -> AsyncIterator[Connection]:  # noqa: ARG001 - emptied first
    """The connection of those who buy meanwhile."""
    connection = await asyncpg.connect(postgres.url())
    yield connection
    await connection.close()


@asynccontextmanager
async def before_each_look(
    monkeypatch: pytest.MonkeyPatch, happens: Callable[[], Coroutine[Any, Any, None]]
) -> AsyncIterator[list[str]]:
    """During the block something happens, and is committed, before each statement of the audit; what these were."""
    looks: list[str] = []
    happening = False

    def interrupted(look: Callable[..., Any]) -> Callable[..., Any]:
        async def look_after_it(connection: Connection, statement: str, *arguments: Any) -> Any:
            nonlocal happening
            if not happening:
                happening = True
                await happens()
                happening = False
                looks.append(statement)
            return await look(connection, statement, *arguments)

        return look_after_it

    with monkeypatch.context() as patched:
        for name in LOOKS:
            patched.setattr(asyncpg.Connection, name, interrupted(getattr(asyncpg.Connection, name)))
        yield looks


class Crowd:
    """Customers who hold, pay, release and forget, one change at a time, over a connection of their own."""

    def __init__(self, connection: Connection, customers: list[Account], seats: list[int]) -> None:
        self._connection = connection
        self._customers = customers
        self._free = seats
        self._held: dict[UUID, int] = {}
        self._random = random.Random(7)
        self.changes = 0

    async def change(self) -> None:
        """One of them, committed; now and then the sequencer has numbered what there is."""
        what = self._random.choice(("hold", "hold", "pay", "release", "forget", "number"))
        self.changes += 1
        if what == "number":
            async with self._connection.transaction():
                await number_committed(self._connection, 1_000)
        elif what == "hold" and self._free:
            seat = self._free.pop(self._random.randrange(len(self._free)))
            self._held[await give(self._connection, self._random.choice(self._customers), seat)] = seat
        elif self._held:
            id_ = self._random.choice(list(self._held))
            seat = self._held.pop(id_)
            async with self._connection.transaction():
                if what == "forget":
                    await make_overdue(self._connection, id_)
                    await settle_overdue(self._connection, 10)
                else:
                    target = State.CONFIRMED if what == "pay" else State.CANCELLED
                    await settle(self._connection, [settle_of(id_, target)])
            if what != "pay":
                self._free.append(seat)


@pytest.mark.oldest_postgresql
async def test_what_is_committed_between_two_looks_is_no_fault(
    engine: AsyncEngine, sql: Connection, settings: Settings, elsewhere: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    seats = list((await make_session(sql, settings, 40)).seat_ids)
    crowd = Crowd(elsewhere, await make_customers(sql, settings, 5), seats)
    for _ in range(60):
        await crowd.change()
    # As if the log had begun long ago: else it could not be expected to know of each hold.
    await sql.execute("update events set at = at - interval '1 hour' where kind = 'session.created'")
    async with before_each_look(monkeypatch, crowd.change) as looks:
        for _ in range(3):
            assert await do_round(engine, sql, settings) == {}
    assert crowd.changes > 150
    assert {untold.CHECK_OPEN, logaudit.CHECK_EVENTS, audit.CHECK_SEATS, audit.CHECK_RESERVATIONS} <= set(looks)


async def test_a_payment_or_a_hold_between_the_log_and_the_question_whether_it_knows_of_all_is_no_fault(
    engine: AsyncEngine, sql: Connection, settings: Settings, elsewhere: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    (customer,) = await make_customers(sql, settings, 1)
    seats = (await make_session(sql, settings)).seat_ids
    held = [await give(sql, customer, seat) for seat in seats[:3]]
    async with sql.transaction():
        await number_committed(sql, 100)
    # The log is old enough to know of each hold.
    await sql.execute("update events set at = at - interval '1 hour'")
    check_open = untold.check_open

    async def after_a_payment(look: Connection, log: LogAudit) -> audit.Slice:
        assert log.open == set(held)
        for id_, seat, is_numbered in zip(held, seats[3:6], (True, False, False), strict=True):
            async with elsewhere.transaction():
                await settle(elsewhere, [settle_of(id_, State.CONFIRMED)])
                await give(elsewhere, customer, seat)
                if is_numbered:
                    await number_committed(elsewhere, 100)
        return await check_open(look, log)

    monkeypatch.setattr(untold, "check_open", after_a_payment)
    assert await do_round(engine, sql, settings) == {}
    assert await sql.fetchval("select count(*) from reservations where state = 'CONFIRMED'") == 3


@pytest.mark.parametrize("is_numbered", [True, False])
async def test_an_end_that_is_told_after_more_than_is_read_is_no_fault(  # noqa: PLR0913 - fixtures
    engine: AsyncEngine,
    sql: Connection,
    settings: Settings,
    elsewhere: Connection,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_numbered: bool,
) -> None:
    customer, other = await make_customers(sql, settings, 2)
    seats = (await make_session(sql, settings)).seat_ids
    held = await give(sql, customer, seats[0])
    async with sql.transaction():
        await number_committed(sql, 100)
    monkeypatch.setattr(logaudit, "OPEN_MAX", 2)
    check_open = untold.check_open

    async def after_many_events(look: Connection, log: LogAudit) -> audit.Slice:
        async with elsewhere.transaction():
            for seat in seats[1:3]:
                id_ = await give(elsewhere, other, seat)
                await settle(elsewhere, [settle_of(id_, State.CANCELLED)])
            await settle(elsewhere, [settle_of(held, State.CONFIRMED)])
            if is_numbered:
                await number_committed(elsewhere, 100)
        return await check_open(look, log)

    monkeypatch.setattr(untold, "check_open", after_many_events)
    assert await do_round(engine, sql, settings) == {}


@pytest.mark.parametrize("held_max", [1, 2])
async def test_with_too_many_holds_at_once_the_log_is_not_asked_for_each(
    engine: AsyncEngine, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch, held_max: int
) -> None:
    first, second = await make_customers(sql, settings, 2)
    seats = (await make_session(sql, settings)).seat_ids
    held = [await give(sql, first, seats[0]), await give(sql, second, seats[1])]
    async with sql.transaction():
        await number_committed(sql, 100)
    async with sql.transaction():
        # Nobody tells of this end.
        await settle(sql, [settle_of(held[0], State.CONFIRMED)])
        await sql.execute("delete from events where number is null")
    assert [found.count for found in (await do_round(engine, sql, settings)).values()] == [1]
    monkeypatch.setattr(logaudit, "OPEN_MAX", held_max)
    assert await do_round(engine, sql, settings) == {}
    await sql.execute(EMPTY_TABLES)


async def test_with_too_many_untold_holds_the_log_is_not_asked_for_each(
    engine: AsyncEngine, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (customer,) = await make_customers(sql, settings, 1)
    seats = (await make_session(sql, settings)).seat_ids
    async with sql.transaction():
        await number_committed(sql, 100)
    await sql.execute("update events set at = at - interval '1 hour'")
    for seat in seats[:3]:
        await give(sql, customer, seat)
    await sql.execute("delete from events where number is null")
    assert [found.count for found in (await do_round(engine, sql, settings)).values()] == [3]
    monkeypatch.setattr(logaudit, "OPEN_MAX", 3)
    assert await do_round(engine, sql, settings) == {}
    await sql.execute(EMPTY_TABLES)


async def test_a_log_that_is_trimmed_while_it_is_read_is_no_fault(
    engine: AsyncEngine, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (customer,) = await make_customers(sql, settings, 1)
    held = [await give(sql, customer, seat) for seat in (await make_session(sql, settings)).seat_ids[:6]]
    async with sql.transaction():
        await settle(sql, [settle_of(id_, State.CONFIRMED) for id_ in held])
        await number_committed(sql, 100)
    # The first holds are read, and their ends are removed before they are.
    await sql.execute("update events set at = at - interval '100 hours' where number <= 9")
    check_slice, trimmed = LogAudit.check_slice, 0

    async def after_a_trim(self: LogAudit, look: Connection, after: int, keep_hours: int) -> audit.Slice:
        nonlocal trimmed
        if after:
            trimmed += await event_log.trim(sql, 72, 100)
        return await check_slice(self, look, after, keep_hours)

    monkeypatch.setattr(LogAudit, "check_slice", after_a_trim)
    assert await do_round(engine, sql, settings) == {}
    assert trimmed == 9
    await sql.execute(EMPTY_TABLES)
