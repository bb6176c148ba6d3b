"""A hint that is published late dies on time: it waits in RabbitMQ only for the rest of the time to pay."""

import asyncio

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import RabbitMQ
from service.broker.topology import EXPIRED_QUEUE
from service.database import Connection
from service.settings import Settings
from tests.stage.broker import connected, received
from tests.stage.factories import make_overdue, make_settings
from tests.stage.holdings import make_holds, number_all
from tests.stage.relaying import relaying


@pytest.fixture
def settings(postgres: Postgres, sql: Connection, rabbitmq: RabbitMQ | Container) -> Settings:  # noqa: ARG001 - emptied
    """The queue of hints keeps them for a minute, if they let it."""
    return make_settings(postgres.url(), broker_url=rabbitmq.url, hold_seconds=60)


@pytest.mark.parametrize("overdue", [False, True], ids=["a second before its deadline", "after its deadline"])
async def test_late_hint_still_dies_at_the_deadline(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: RabbitMQ | Container, *, overdue: bool
) -> None:
    async with relaying(engine, settings) as relay:
        (id_,) = await make_holds(sql, settings, 1, hold_seconds=1)
        if overdue:
            await make_overdue(sql, id_)
        await number_all(engine, settings)
        await relay.step()
    with connected(rabbitmq.url) as connection:
        (hint,) = await asyncio.to_thread(received, EXPIRED_QUEUE(connection.channel()), 1)
    assert hint["reservationId"] == str(id_)
    assert await sql.fetchval("select clock_timestamp() >= expires_at from reservations where id = $1", id_)
