"""An inbox whose steps the test runs, and dead letters for it."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from expirer.loops import inbox as inbox_module
from expirer.loops.inbox import Inbox
from service.broker.topology import EXPIRED_QUEUE
from service.database import Connection
from service.errors import Unavailable
from service.settings import Settings
from tests.stage.broker import message_count, send_hints
from tests.stage.factories import make_overdue
from tests.stage.holdings import hints_of, make_holds
from tests.stage.waiting import WAIT_SECONDS_MAX, until

NO_SEAT = 999_999_999


@asynccontextmanager
async def inbox_of(
    engine: AsyncEngine, settings: Settings, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[Inbox]:
    """An inbox that is closed at the end."""
    inbox = Inbox(engine, settings, clock)
    try:
        yield inbox
    finally:
        await inbox.close()


async def make_dead_letters(sql: Connection, settings: Settings, url: str, count: int) -> list[UUID]:
    """Makes this many overdue holds, and a dead letter of each. Returns their ids."""
    ids = await make_holds(sql, settings, count)
    await make_overdue(sql, *ids)
    send_hints(url, await hints_of(sql, ids))
    return ids


async def step_with(inbox: Inbox, count: int) -> float:
    """A step whose batch is this many dead letters, however slowly RabbitMQ delivers them."""
    patient = {"inbox_batch_max": count, "inbox_linger_ms": WAIT_SECONDS_MAX * 1_000}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(inbox_module, "WAIT_MS", WAIT_SECONDS_MAX * 1_000)
        patched.setattr(inbox, "_settings", inbox._settings.model_copy(update=patient))
        return await inbox.step()


async def settle_all(inbox: Inbox, url: str) -> None:
    """Steps until no dead letter is left, whatever RabbitMQ and PostgreSQL say meanwhile."""

    async def settled() -> bool:
        with suppress(Unavailable):
            await inbox.step()
            # What was sent to it and not yet taken is not counted by RabbitMQ.
            return not inbox._taken and not inbox._letters._arrived and unsettled(url) == 0
        return False

    await until(settled, "the last dead letter")


async def tamper(sql: Connection, id_: UUID) -> None:
    """Makes the reservation impossible to end: it names a seat that does not exist."""
    await sql.execute("update reservations set seat_ids = seat_ids || $2::bigint where id = $1", id_, NO_SEAT)


async def mend(sql: Connection, id_: UUID) -> None:
    """Undoes `tamper`."""
    await sql.execute("update reservations set seat_ids = array_remove(seat_ids, $2) where id = $1", id_, NO_SEAT)


def unsettled(url: str) -> int:
    """How many dead letters wait for an inbox: those that one has taken and not acknowledged are not counted."""
    return message_count(url, EXPIRED_QUEUE)
