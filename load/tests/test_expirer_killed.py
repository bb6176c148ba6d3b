"""SIGKILL for an expirer at its worst moments, each forced: a proxy keeps back exactly the next thing that it says.

Every event is published at least once, in the order of the seats' versions, and every seat is right.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from dev.postgres import Postgres
from service.broker.topology import EXPIRED_QUEUE, PARKED_QUEUE
from service.database import Connection
from service.settings import Settings
from tests.stage.broker import first_time, listening, send_hints, until_waiting, versions_told
from tests.stage.factories import make_overdue, make_settings
from tests.stage.forcing import locked
from tests.stage.holdings import count_states, hints_of, make_holds
from tests.stage.processes import Process, expirer_process
from tests.stage.proxy import COMMIT, Fault, Proxy, proxy_before
from tests.stage.relaying import Broker
from tests.stage.waiting import until, until_lock_waits

ACK, PUBLISH = b"\x00\x3c\x00\x50", b"\x00\x3c\x00\x28"
"""The methods of AMQP, by class and number."""
MOVE_CURSOR = b"set number = $4"
ONLY_INBOX = {"sweep_interval_ms": 60_000, "sequencer_interval_ms": 10_000, "relay_interval_ms": 10_000}
"""The other loops do their first step, and then nothing for as long as the test takes."""


@pytest.fixture
def settings(postgres: Postgres, sql: Connection, rabbitmq: Broker) -> Settings:  # noqa: ARG001 - emptied first
    """With a broker."""
    return make_settings(postgres.url(), broker_url=rabbitmq.url)


@asynccontextmanager
async def broker_proxy(postgres: Postgres, rabbitmq: Broker) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy in front of RabbitMQ, and how to connect through it."""
    async with proxy_before(replace(postgres, port=rabbitmq.port)) as proxy:
        yield proxy, rabbitmq.url.replace(f":{rabbitmq.port}/", f":{proxy.port}/")


async def until_begun(sql: Connection) -> None:
    """Returns when the relay has its place in the log."""

    async def begun() -> bool:
        return bool(await sql.fetchval("select exists (select from cursors where name = 'broker')"))

    await until(begun, "the relay's cursor")


async def until_expired(sql: Connection, count: int) -> None:
    """Returns when this many holds have expired."""

    async def expired() -> bool:
        return (await count_states(sql)).get("EXPIRED") == count

    await until(expired, f"{count} expired holds")


async def kill(expirer: Process) -> None:
    """SIGKILL; returns when it is gone."""
    expirer.kill_now()
    await expirer.process.wait()


async def assert_settled_once(sql: Connection, settings: Settings, rabbitmq: Broker, ids: list[UUID]) -> None:
    """Another expirer takes the remaining messages, and finds nothing to do."""
    await until_waiting(rabbitmq.url, EXPIRED_QUEUE, len(ids))
    url = settings.database_url.get_secret_value()
    async with expirer_process(url, broker_url=rabbitmq.url, **ONLY_INBOX):
        await until_waiting(rabbitmq.url, EXPIRED_QUEUE, 0)
    await until_waiting(rabbitmq.url, EXPIRED_QUEUE, 0)
    await until_waiting(rabbitmq.url, PARKED_QUEUE, 0)
    assert await count_states(sql) == {"EXPIRED": len(ids)}
    assert await sql.fetchval("select count(*) from events where kind = 'reservation.expired'") == len(ids)


async def overdue(sql: Connection, settings: Settings, count: int) -> list[UUID]:
    """Holds that are overdue."""
    ids = await make_holds(sql, settings, count)
    await make_overdue(sql, *ids)
    return ids


async def test_inbox_killed_before_its_commit_answer_settles_once(
    postgres: Postgres, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    async with (
        proxy_before(postgres) as proxy,
        expirer_process(proxy.url, broker_url=rabbitmq.url, **ONLY_INBOX) as expirer,
    ):
        await until_begun(sql)
        ids = await overdue(sql, settings, 3)
        (seat,) = await sql.fetchval("select seat_ids from reservations where id = $1", ids[1])
        async with locked(postgres, "seats", seat):
            send_hints(rabbitmq.url, await hints_of(sql, ids))
            await until_lock_waits(sql)
            strike = proxy.strike(Fault.SWALLOW_ANSWER, COMMIT)
        await asyncio.wait_for(strike.struck.wait(), 10)
        await until_expired(sql, 3)
        await kill(expirer)
    await assert_settled_once(sql, settings, rabbitmq, ids)


async def test_inbox_killed_before_acknowledging_settles_once(
    postgres: Postgres, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    async with (
        broker_proxy(postgres, rabbitmq) as (proxy, broker_url),
        expirer_process(postgres.url(), broker_url=broker_url, **ONLY_INBOX) as expirer,
    ):
        await until_begun(sql)
        strike = proxy.strike(Fault.WITHHOLD, ACK)
        ids = await overdue(sql, settings, 3)
        send_hints(rabbitmq.url, await hints_of(sql, ids))
        await asyncio.wait_for(strike.struck.wait(), 10)
        assert await count_states(sql) == {"EXPIRED": 3}
        await kill(expirer)
    await assert_settled_once(sql, settings, rabbitmq, ids)


RELAY_ONLY = {"sweep_interval_ms": 60_000, "hold_seconds": 30}


async def assert_told_again(
    sql: Connection, settings: Settings, rabbitmq: Broker, kept_back: tuple[Any, ...], at_once: int
) -> None:
    """Kills a relay at that moment, after `at_once` events were published; another one publishes all of them."""
    proxied, database_url, broker_url, strike_at = kept_back
    with listening(rabbitmq.url) as listener:
        async with expirer_process(database_url, broker_url=broker_url, **RELAY_ONLY) as expirer:
            await until_begun(sql)
            strike = proxied.strike(*strike_at)
            # All of it is one batch.
            async with sql.transaction():
                await make_holds(sql, settings, 5)
            await asyncio.wait_for(strike.struck.wait(), 10)
            if at_once:
                await listener.until(at_once)
            assert await sql.fetchval("select number from cursors where name = 'broker'") == 0
            await kill(expirer)
        url = settings.database_url.get_secret_value()
        async with expirer_process(url, broker_url=rabbitmq.url, **RELAY_ONLY):
            await make_holds(sql, settings, 5)
            events = await listener.until(12)
    numbers = [event["number"] for event in events]
    assert first_time(events) == list(range(1, 13))
    assert len(numbers) == 12 + at_once, "what was told and not noted is told once more"
    assert all(versions == [2] for versions in versions_told(events).values())


async def test_relay_killed_before_moving_its_cursor_repeats(
    postgres: Postgres, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    async with proxy_before(postgres) as proxy:
        kept_back = proxy, proxy.url, rabbitmq.url, (Fault.WITHHOLD, MOVE_CURSOR)
        await assert_told_again(sql, settings, rabbitmq, kept_back, at_once=6)


async def test_relay_killed_before_its_confirms_repeats(
    postgres: Postgres, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    async with broker_proxy(postgres, rabbitmq) as (proxy, broker_url):
        kept_back = proxy, postgres.url(), broker_url, (Fault.SWALLOW_ANSWER, PUBLISH)
        await assert_told_again(sql, settings, rabbitmq, kept_back, at_once=6)


async def test_relay_killed_before_sending_loses_nothing(
    postgres: Postgres, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    async with broker_proxy(postgres, rabbitmq) as (proxy, broker_url):
        kept_back = proxy, postgres.url(), broker_url, (Fault.WITHHOLD, PUBLISH)
        await assert_told_again(sql, settings, rabbitmq, kept_back, at_once=0)
