"""Three expirers: one relays, the others stand by; the active one is killed, another carries on within two seconds."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import orjson
import pytest
from kombu import Queue

from dev.postgres import Postgres
from service.database import Connection
from service.settings import Settings
from tests.stage.broker import bound_queue, connected, first_time
from tests.stage.crowd import enter_all
from tests.stage.factories import Account, make_customer, make_session, make_settings
from tests.stage.forcing import give
from tests.stage.processes import Process, expirer_process
from tests.stage.relaying import Broker
from tests.stage.waiting import until

EXPIRERS = 3
TAKEN_OVER_SECONDS_MAX = 2.0
STREAM_INTERVAL_SECONDS = 0.02


@pytest.fixture
def settings(postgres: Postgres, sql: Connection, rabbitmq: Broker) -> Settings:  # noqa: ARG001 - emptied first
    """With a broker."""
    return make_settings(postgres.url(), broker_url=rabbitmq.url, seats_per_customer_max=1_000)


async def owner_of(sql: Connection) -> str | None:
    """The present or last owner of the relay's lease."""
    query = "select owner from cursors where name = 'broker' and leased_until > clock_timestamp()"
    owner: str | None = await sql.fetchval(query)
    return owner


async def active_of(sql: Connection, expirers: list[Process]) -> Process:
    """The process that relays."""

    async def owned() -> bool:
        return await owner_of(sql) is not None

    await until(owned, "a relay")
    owner = str(await owner_of(sql))
    (active,) = [expirer for expirer in expirers if owner.split("-")[-2] == str(expirer.process.pid)]
    return active


@asynccontextmanager
async def three_expirers(settings: Settings, rabbitmq: Broker) -> AsyncIterator[list[Process]]:
    """All of them alive."""
    url = settings.database_url.get_secret_value()
    async with AsyncExitStack() as stack:
        yield await enter_all(stack, [expirer_process(url, broker_url=rabbitmq.url) for _ in range(EXPIRERS)])


@asynccontextmanager
async def events_made(sql: Connection, customer: Account, seat_ids: list[int]) -> AsyncIterator[None]:
    """A customer holds one seat after the other during the block."""

    async def hold() -> None:
        for seat in seat_ids:
            await give(sql, customer, seat)
            await asyncio.sleep(STREAM_INTERVAL_SECONDS)

    holding = asyncio.create_task(hold())
    try:
        yield
        assert not holding.done(), "there were enough seats"
    finally:
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)


async def until_event_after(queue: Queue, number: int, events: list[Any]) -> None:
    """Returns when a later event has come; each that comes is noted."""

    async def came() -> bool:
        while (message := await asyncio.to_thread(queue.get, no_ack=True)) is not None:
            events.append(orjson.loads(message.body))
        return bool(events) and max(event["number"] for event in events) > number

    await until(came, f"an event after {number}")


async def test_killed_expirer_is_replaced_within_two_seconds(
    postgres: Postgres, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    customer = await make_customer(sql, settings)
    seats = list((await make_session(sql, settings, 2_000)).seat_ids)
    events: list[Any] = []
    async with three_expirers(settings, rabbitmq) as expirers:
        active = await active_of(sql, expirers)
        with connected(rabbitmq.url) as connection:
            queue = bound_queue(connection, "tests.stream")
            making = await asyncpg.connect(postgres.url())
            async with events_made(making, customer, seats):
                await until_event_after(queue, 10, events)
                assert await active_of(sql, expirers) is active, "the others stand by"
                active.kill_now()
                killed_at = time.monotonic()
                await until_event_after(queue, await last_number(sql), events)
                seconds = time.monotonic() - killed_at
            assert await active_of(sql, [other for other in expirers if other is not active]) is not active
            await making.close()
    numbers = first_time(events)
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert seconds <= TAKEN_OVER_SECONDS_MAX


async def last_number(sql: Connection) -> int:
    """The last one that was given."""
    return int(await sql.fetchval("select number from cursors where name = 'log'"))


async def test_stopped_expirer_is_replaced_at_once(sql: Connection, settings: Settings, rabbitmq: Broker) -> None:
    async with three_expirers(settings, rabbitmq) as expirers:
        active = await active_of(sql, expirers)
        # No other replica would get the lease by its expiry within the test's time.
        assert await active.stop() == 0
        rest = [other for other in expirers if other is not active]
        began = time.monotonic()
        assert await active_of(sql, rest) in rest
        assert time.monotonic() - began < settings.lease_ms / 1000
