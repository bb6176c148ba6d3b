"""One relay publishes at a time: what becomes of the lease while it is at work, lost, cut off, idle, or ended."""

import asyncio

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import Postgres
from expirer.loops.relay import Relay
from service.database import Connection
from service.errors import BrokerAway
from service.events import cursors
from service.settings import Settings
from tests.stage.broker import listening
from tests.stage.factories import make_settings
from tests.stage.holdings import make_numbered
from tests.stage.relaying import Broker, cursor, relaying
from tests.stage.waiting import until


@pytest.fixture
def settings(postgres: Postgres, sql: Connection, rabbitmq: Broker) -> Settings:  # noqa: ARG001 - emptied first
    """With a broker."""
    return make_settings(postgres.url(), broker_url=rabbitmq.url, hold_seconds=1)


async def test_relay_that_loses_its_lease_only_repeats_events(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    with listening(rabbitmq.url) as listener:
        async with relaying(engine, settings, "slow") as slow, relaying(engine, settings, "quick") as quick:
            await make_numbered(engine, sql, settings, 3)
            await slow.step()
            last = await make_numbered(engine, sql, settings, 3)
            rabbitmq.pause()
            publishing = asyncio.create_task(slow.step())
            await until_waits_for_confirms(slow)
            await sql.execute("update cursors set owner = 'quick' where name = 'broker'")
            rabbitmq.resume()
            await publishing
            assert await cursor(sql) == 4, "it is not the former owner's to move"
            await quick.step()
            assert await cursor(sql) == last
        events = await listener.until(last)
    numbers = [event["number"] for event in events]
    assert numbers == [1, 2, 3, 4, 5, 6, 7, 8, 5, 6, 7, 8]


async def until_waits_for_confirms(relay: Relay) -> None:
    """Returns when it has published, and nothing is confirmed."""

    async def waits() -> bool:
        lines = relay._publisher._lines
        return lines is not None and bool(lines[1].waiting)

    await until(waits, "a message without a confirm")


async def test_slow_confirms_do_not_cost_the_relay_its_lease(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    brief = settings.model_copy(update={"lease_ms": 1_500, "confirm_timeout_ms": 20_000})
    async with relaying(engine, brief, "a") as relay:
        await make_numbered(engine, sql, settings, 1)
        await relay.step()
        last = await make_numbered(engine, sql, settings, 1)
        rabbitmq.pause()
        publishing = asyncio.create_task(relay.step())
        third_lease = await sql.fetchval("select clock_timestamp() + interval '4500 ms'")

        async def over() -> bool:
            assert await cursors.take_lease(sql, "broker", "b", 1_500) is None
            return bool(await sql.fetchval("select clock_timestamp() > $1", third_lease))

        await until(over, "three leases' time")
        rabbitmq.resume()
        await publishing
        assert await cursor(sql) == last


async def test_relay_that_hangs_loses_its_lease(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    patient = settings.model_copy(update={"lease_ms": 500, "heartbeat_seconds_max": 1, "confirm_timeout_ms": 60_000})
    async with relaying(engine, patient, "a") as relay:
        await make_numbered(engine, sql, settings, 1)
        await relay.step()
        published = await cursor(sql)
        await make_numbered(engine, sql, settings, 1)
        rabbitmq.pause()
        publishing = asyncio.create_task(relay.step())
        await until_waits_for_confirms(relay)

        async def taken_over() -> bool:
            return await cursors.take_lease(sql, "broker", "b", 60_000) is not None

        await until(taken_over, "a lease that is not renewed")
        assert not publishing.done()
        rabbitmq.resume()
        await publishing
        assert await cursor(sql) == published, "it is another's to move"


async def test_relay_without_rabbitmq_releases_its_lease_at_once(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    nowhere = make_settings(settings.database_url.get_secret_value(), broker_url="amqp://127.0.0.1:1//")
    async with relaying(engine, nowhere, "cut off") as cut_off, relaying(engine, settings, "other") as other:
        last = await make_numbered(engine, sql, settings, 1)
        with pytest.raises(BrokerAway):
            await cut_off.step()
        await other.step()
        assert await cursor(sql) == last


async def test_a_relay_that_ends_leaves_its_lease_to_the_next(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    async with relaying(engine, settings, "a"):
        assert await cursors.take_lease(sql, "broker", "b", 60_000) is None
    assert await cursors.take_lease(sql, "broker", "b", 60_000) is not None


async def test_a_relay_without_events_keeps_its_connection(
    engine: AsyncEngine, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.broker.link.HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr("service.broker.publisher.KEEP_ALIVE_SECONDS", 0.2)
    async with relaying(engine, settings) as relay:
        await make_numbered(engine, sql, settings, 1)
        await relay.step()
        link = relay._publisher._link
        first = link.connection
        later = await sql.fetchval("select clock_timestamp() + interval '3 s'")

        async def would_be_cut_off() -> bool:
            await relay.step()
            return bool(await sql.fetchval("select clock_timestamp() > $1", later))

        await until(would_be_cut_off, "three heartbeats")
        await make_numbered(engine, sql, settings, 1)
        await relay.step()
        assert link.connection is first is not None
