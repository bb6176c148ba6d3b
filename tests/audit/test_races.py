"""The self-audit of a busy ledger: no change that is committed between two of its looks is a fault."""

import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import Postgres
from service.audit import event_log, ledger
from service.audit.event_log import LogCheck
from service.audit.slices import Limits
from service.database import Connection
from service.events.numbering import number_committed
from service.ledger.expiring import settle_overdue
from service.ledger.settling import settle
from service.reservation import State
from service.settings import Settings
from tests.stage.audits import do_round
from tests.stage.factories import Account, make_customers, make_overdue, make_session, settle_of
from tests.stage.forcing import give

LOOKS = ("fetch", "fetchrow", "fetchval", "execute")


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
async def test_changes_between_two_looks_are_no_fault(
    engine: AsyncEngine, sql: Connection, settings: Settings, elsewhere: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    seats = list((await make_session(sql, settings, 40)).seat_ids)
    crowd = Crowd(elsewhere, await make_customers(sql, settings, 5), seats)
    for _ in range(60):
        await crowd.change()
    # As if the log had begun long ago: else it could not be expected to have events of each hold.
    await sql.execute("update events set at = at - interval '1 hour' where kind = 'session.created'")
    async with before_each_look(monkeypatch, crowd.change) as looks:
        for _ in range(3):
            tally = await do_round(engine, settings, rows=3)
            assert (tally.violations, tally.unlooked) == ({}, {})
    assert crowd.changes > 150
    assert {event_log.READ_END, event_log.CHECK_EVENTS, ledger.CHECK_SEATS, ledger.CHECK_RESERVATIONS} <= set(looks)


@pytest.mark.parametrize("is_numbered_last", [True, False])
async def test_changes_while_the_log_is_read_are_no_fault(
    sql: Connection, settings: Settings, elsewhere: Connection, *, is_numbered_last: bool
) -> None:
    (customer,) = await make_customers(sql, settings, 1)
    seats = (await make_session(sql, settings)).seat_ids
    held = [await give(sql, customer, seat) for seat in seats[:3]]
    async with sql.transaction():
        await number_committed(sql, 100)
    # The log is old enough to have events of each hold.
    await sql.execute("update events set at = at - interval '1 hour'")
    check = LogCheck(72, Limits(rows=1))
    for id_, seat, is_numbered in zip(held, seats[3:6], (True, False, False), strict=True):
        async with elsewhere.transaction():
            await settle(elsewhere, [settle_of(id_, State.CONFIRMED)])
            await give(elsewhere, customer, seat)
            if is_numbered:
                await number_committed(elsewhere, 100)
        # The first two looks come to the session's event.
        await check.look(sql, 0)
        await check.look(sql, 0)
    while not check.is_read:
        await check.look(sql, 0)
    assert check.suspects.keys() == set(held[1:]), "the events of their ends come later"
    if is_numbered_last:
        async with elsewhere.transaction():
            await number_committed(elsewhere, 100)
    looked = await check.look(sql, 0)
    assert (looked.faults, looked.unlooked) == ([], 0)
    assert await sql.fetchval("select count(*) from reservations where state = 'CONFIRMED'") == 3
