"""A relay whose steps the test runs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncEngine

from dev.containers import Container
from dev.servers import RabbitMQ
from expirer.loops.relay import Relay
from service.database import Connection
from service.errors import BrokerAway
from service.settings import Settings
from tests.stage.waiting import until

Broker = RabbitMQ | Container


@asynccontextmanager
async def relaying(engine: AsyncEngine, settings: Settings, owner: str = "a") -> AsyncIterator[Relay]:
    """A relay that has begun at the end of the log."""
    relay = Relay(engine, settings, owner)
    try:
        await relay.step()
        yield relay
    finally:
        await relay.close()


async def cursor(sql: Connection) -> int:
    """How far the relay has come."""
    return int(await sql.fetchval("select number from cursors where name = 'broker'"))


async def until_published(relay: Relay, sql: Connection, number: int) -> None:
    """Steps until the cursor is there, whatever RabbitMQ says meanwhile."""

    async def published() -> bool:
        try:
            await relay.step()
        except BrokerAway:
            return False
        return await cursor(sql) == number

    await until(published, f"the cursor at {number}")
