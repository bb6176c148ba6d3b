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
