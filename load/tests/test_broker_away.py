"""RabbitMQ killed, paused, or out of memory: the sweep releases seats, and all events are published later.

The expirer is a process of its own. Bookings never talk to RabbitMQ: see `test_broker_waits`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from dev.postgres import Postgres
from service.broker.topology import PARKED_QUEUE
from service.database import Connection
from service.settings import Settings
from tests.stage.broker import Listener, first_time, listening, message_count, versions_told, write_queues_down
from tests.stage.factories import make_settings
from tests.stage.holdings import count_states, make_holds
from tests.stage.processes import Process, expirer_process
from tests.stage.relaying import Broker
from tests.stage.verdict import broken_rules
from tests.stage.waiting import until

HOLD_SECONDS = 1
SWEEP_MS = 200
OPTIONS = {
    "hold_seconds": HOLD_SECONDS,
    "sweep_interval_ms": SWEEP_MS,
    "broker_connect_timeout_ms": 500,
    "confirm_timeout_ms": 500,
}
LATE_SECONDS_MAX = 5
"""For a seat without RabbitMQ: the sweep's interval, and a machine that is busy with other tests."""
LITTLE_MEMORY, MEMORY = "0.000001", "0.4"

Change = Callable[[Broker], object]
FAULTS: dict[str, tuple[Change, Change]] = {
    "killed": (lambda rabbitmq: rabbitmq.kill(), lambda rabbitmq: rabbitmq.start()),
    "paused": (lambda rabbitmq: rabbitmq.pause(), lambda rabbitmq: rabbitmq.resume()),
    "out of memory": (
        lambda rabbitmq: rabbitmq.control("set_vm_memory_high_watermark", LITTLE_MEMORY),
        lambda rabbitmq: rabbitmq.control("set_vm_memory_high_watermark", MEMORY),
    ),
}


@pytest.fixture
def settings(postgres: Postgres, sql: Connection, rabbitmq: Broker) -> Settings:  # noqa: ARG001 - emptied first
    """Those of the expirer."""
    return make_settings(postgres.url(), broker_url=rabbitmq.url, **OPTIONS)


async def until_begun(sql: Connection) -> None:
    """Returns when the relay has its place in the log."""

    async def begun() -> bool:
        return bool(await sql.fetchval("select exists (select from cursors where name = 'broker')"))

    await until(begun, "the relay's cursor")


@asynccontextmanager
async def expirer_of(sql: Connection, settings: Settings) -> AsyncIterator[Process]:
    """An expirer whose relay has begun."""
    assert settings.broker_url is not None
    broker_url = settings.broker_url.get_secret_value()
    async with expirer_process(settings.database_url.get_secret_value(), broker_url=broker_url, **OPTIONS) as expirer:
        await until_begun(sql)
        yield expirer


async def until_all_are_back(sql: Connection) -> float:
    """Returns when no seat is held any more: how many seconds after the last deadline."""

    async def back() -> bool:
        return "HELD" not in await count_states(sql)

    await until(back, "the end of every hold")
    query = "select extract(epoch from max(settled_at - expires_at)) from reservations"
    return float(await sql.fetchval(query))


async def until_told(sql: Connection, listener: Listener) -> None:
    """Returns when the listener has got every event that there is, each seat's in the order of its versions."""

    async def numbered() -> bool:
        return not await sql.fetchval("select exists (select from events where number is null)")

    await until(numbered, "a number for each event")
    last = await sql.fetchval("select max(number) from events")
    events = await listener.until(last)
    assert set(first_time(events)) == set(range(1, last + 1))
    versions = await sql.fetch("select id, version from seats where version > 1")
    assert versions_told(events) == {row["id"]: list(range(2, row["version"] + 1)) for row in versions}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_seats_are_released_without_rabbitmq_and_events_follow(
    sql: Connection, settings: Settings, rabbitmq: Broker, fault: tuple[Change, Change]
) -> None:
    go, come_back = fault
    with listening(rabbitmq.url) as listener:
        async with expirer_of(sql, settings) as expirer:
            await make_holds(sql, settings, 8, HOLD_SECONDS)
            await listener.until(9)
            await asyncio.to_thread(write_queues_down, rabbitmq)
            await asyncio.to_thread(go, rabbitmq)
            try:
                await make_holds(sql, settings, 8, HOLD_SECONDS)
                assert await until_all_are_back(sql) < LATE_SECONDS_MAX
                await until_noticed(expirer)
            finally:
                await asyncio.to_thread(come_back, rabbitmq)
            await make_holds(sql, settings, 8, HOLD_SECONDS)
            await until_all_are_back(sql)
            await until_told(sql, listener)
            assert expirer.process.returncode is None
    assert await broken_rules(sql) == {}
    assert message_count(rabbitmq.url, PARKED_QUEUE) == 0


async def until_noticed(expirer: Process) -> None:
    """Returns when the relay has failed: it has tried."""

    async def noticed() -> bool:
        return any('"relay"' in line and "BrokerAway" in line for line in expirer.output().splitlines())

    await until(noticed, "a step of the relay that failed")


async def test_expirer_started_without_rabbitmq_publishes_later(
    sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    with listening(rabbitmq.url) as listener:
        await asyncio.to_thread(write_queues_down, rabbitmq)
        await asyncio.to_thread(rabbitmq.stop)
        try:
            async with expirer_of(sql, settings) as expirer:
                await make_holds(sql, settings, 8, HOLD_SECONDS)
                assert await until_all_are_back(sql) < LATE_SECONDS_MAX
                await until_noticed(expirer)
                await asyncio.to_thread(rabbitmq.start)
                await until_told(sql, listener)
        finally:
            await asyncio.to_thread(rabbitmq.ensure_up)


async def test_an_expirer_ends_in_time_while_rabbitmq_hangs(
    sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    with listening(rabbitmq.url) as listener:
        async with expirer_of(sql, settings) as expirer:
            await make_holds(sql, settings, 2, HOLD_SECONDS)
            await listener.until(3)
            rabbitmq.pause()
            try:
                await make_holds(sql, settings, 2, HOLD_SECONDS)
                await until_noticed(expirer)
                began = time.monotonic()
                assert await expirer.stop() == 0
            finally:
                rabbitmq.resume()
    assert time.monotonic() - began < LATE_SECONDS_MAX
    assert await sql.fetchval("select owner from cursors where name = 'broker'") is None, "the lease is given back"
