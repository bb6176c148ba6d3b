"""Exchanges and queues: any process declares them at any time, with one queue of hints for each time to pay."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime

import pytest
from amqp.exceptions import NotFound
from kombu import Queue
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs
from uuid_utils.compat import uuid7

from dev.postgres import Postgres
from expirer.loops.queues import HoldQueues
from service.broker.consumer import DeadLetters
from service.broker.messages import Hint
from service.broker.parked import ParkedMessages
from service.broker.publisher import Line, Publisher, drain
from service.broker.topology import DELIVERIES_MAX, EXPIRED_QUEUE, HINTS, HOLDS, PARKED_QUEUE, holds_queue, routing_key
from service.database import Connection
from service.errors import BrokerAway
from service.settings import Settings
from tests.stage.broker import connected, message_count, send_hints, until_waiting
from tests.stage.factories import make_settings
from tests.stage.relaying import Broker
from tests.stage.waiting import until

OLD, NEW = 2_000, 30_000
LENGTH_MAX = 1_000_000


@pytest.fixture
def settings(postgres: Postgres, sql: Connection, rabbitmq: Broker) -> Settings:  # noqa: ARG001 - emptied first
    """With a broker, and thirty seconds to pay."""
    return make_settings(postgres.url(), broker_url=rabbitmq.url)


def make_hints(count: int) -> list[Hint]:
    """Hints of no real holds."""
    return [Hint(uuid7(), datetime.now(UTC)) for _ in range(count)]


def publish_hints(settings: Settings, count: int) -> int:
    """Publishes this many hints of new holds. Returns how many were dropped."""
    publisher = Publisher(settings)
    try:
        return publisher.publish([], make_hints(count)).hints_dropped
    finally:
        publisher.close()


def is_there(url: str, queue: Queue) -> bool:
    """Whether RabbitMQ has the queue."""
    with connected(url) as connection:
        try:
            queue(connection.channel()).queue_declare(passive=True)
        except NotFound:
            return False
    return True


@asynccontextmanager
async def queues_of(engine: AsyncEngine, settings: Settings) -> AsyncIterator[HoldQueues]:
    """The loop that removes old queues, whose steps the test runs."""
    queues = HoldQueues(engine, settings)
    try:
        yield queues
    finally:
        await queues.close()


async def queues_noted(sql: Connection) -> list[int]:
    """The times to pay that PostgreSQL knows of."""
    return [row["ttl_ms"] for row in await sql.fetch("select ttl_ms from hold_queues order by ttl_ms")]


def test_everything_may_be_declared_again_while_it_is_in_use(settings: Settings, rabbitmq: Broker) -> None:
    for _ in range(3):
        assert publish_hints(settings, 2) == 0
    assert message_count(rabbitmq.url, holds_queue(NEW, LENGTH_MAX)) == 6


def test_queue_keeps_its_old_maximum_length_and_works(settings: Settings, rabbitmq: Broker) -> None:
    publish_hints(settings, 2)
    longer = settings.model_copy(update={"hold_queue_length_max": 2_000_000})
    with connected(rabbitmq.url) as connection:
        # As while another time to pay was set.
        holds_queue(NEW, LENGTH_MAX)(connection.channel()).unbind_from(HINTS, routing_key=routing_key(NEW))
    with capture_logs() as logs:
        assert publish_hints(longer, 2) == 0
    assert [line["setting"] for line in logs] == ["hold_queue_length_max"]
    assert message_count(rabbitmq.url, holds_queue(NEW, LENGTH_MAX)) == 4


async def test_expired_hint_names_its_reason(settings: Settings, rabbitmq: Broker) -> None:
    publish_hints(settings.model_copy(update={"hold_seconds": 1}), 1)
    await until_waiting(rabbitmq.url, EXPIRED_QUEUE, 1)
    with connected(rabbitmq.url) as connection:
        message = EXPIRED_QUEUE(connection.channel()).get(no_ack=True)
    (death,) = message.headers["x-death"]
    assert (death["reason"], death["queue"]) == ("expired", "rowlock.holds.1000ms")


async def test_rabbitmq_parks_a_message_delivered_too_often(settings: Settings, rabbitmq: Broker) -> None:
    send_hints(rabbitmq.url, make_hints(1))
    with connected(rabbitmq.url) as connection:
        queue = EXPIRED_QUEUE(connection.channel())
        deliveries = 0
        while (message := await asyncio.to_thread(queue.get)) is not None:
            deliveries += 1
            message.requeue()
    assert deliveries == pytest.approx(DELIVERIES_MAX, abs=1)
    await until_waiting(rabbitmq.url, PARKED_QUEUE, 1)
    with closing(ParkedMessages(settings)) as messages:
        assert [(parked.why, parked.reason) for parked in messages.look()] == [("unsettled", "delivery_limit")]


async def test_queue_of_an_old_hold_time_runs_dry_and_is_removed(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    before = settings.model_copy(update={"hold_seconds": OLD // 1000})
    old, new = holds_queue(OLD, LENGTH_MAX), holds_queue(NEW, LENGTH_MAX)
    async with queues_of(engine, before) as queues:
        await queues.step()
    publish_hints(before, 3)
    async with queues_of(engine, settings) as queues:
        publish_hints(settings, 2)
        await queues.step()
        assert message_count(rabbitmq.url, old) == 3, "what is in it dies in its time"
        assert publish_hints_by_key(rabbitmq.url, OLD) == 1, "it gets no more"
        assert await queues_noted(sql) == [OLD, NEW]
        assert queues._link.connection is None, "it would get no heartbeats until the next step"
        await until_waiting(rabbitmq.url, EXPIRED_QUEUE, 3)
        await queues.step()
        assert not is_there(rabbitmq.url, old)
        # A process still uses that time and declares it again: it must not be forgotten before it stays away.
        publish_hints(before, 1)
        await until_waiting(rabbitmq.url, EXPIRED_QUEUE, 4)
        await queues.step()
        assert await queues_noted(sql) == [OLD, NEW]
        await queues.step()
    assert await queues_noted(sql) == [NEW]
    assert not is_there(rabbitmq.url, old)
    assert message_count(rabbitmq.url, new) == 2


def publish_hints_by_key(url: str, ttl_ms: int) -> int:
    """One hint as an expirer with that time to pay sends it, which declares nothing; how many found no queue."""
    with connected(url) as connection:
        line = Line.open(connection, HOLDS, must_take=True)
        line.send(routing_key(ttl_ms), b"{}")
        drain(connection, (line,), 10)
        return line.homeless


async def test_a_queue_that_is_gone_already_is_forgotten(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    await sql.execute("insert into hold_queues (ttl_ms) values (5000), (60000)")
    async with queues_of(engine, settings) as queues:
        await queues.step()
    assert await queues_noted(sql) == [NEW]


async def test_without_other_queues_rabbitmq_is_not_asked(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    nowhere = make_settings(settings.database_url.get_secret_value(), broker_url="amqp://127.0.0.1:1//")
    async with queues_of(engine, nowhere) as queues:
        assert await queues.step() > 1
    assert await queues_noted(sql) == [NEW]


async def test_a_queue_is_not_forgotten_before_rabbitmq_has_removed_it(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    await sql.execute("insert into hold_queues (ttl_ms) values (5000)")
    nowhere = make_settings(settings.database_url.get_secret_value(), broker_url="amqp://127.0.0.1:1//")
    async with queues_of(engine, nowhere) as queues:
        with pytest.raises(BrokerAway):
            await queues.step()
    assert await queues_noted(sql) == [5_000, NEW]


async def test_deleted_queue_of_the_inbox_is_declared_again(settings: Settings, rabbitmq: Broker) -> None:
    letters = DeadLetters(settings)
    letters.take(10, 0, 10)
    with connected(rabbitmq.url) as connection:
        EXPIRED_QUEUE(connection.channel()).delete()

    async def noticed() -> bool:
        try:
            letters.take(10, 0, 10)
        except BrokerAway:
            return True
        return False

    await until(noticed, "the end of the consumer")
    letters.take(10, 0, 10)
    send_hints(rabbitmq.url, make_hints(2))
    assert len(letters.take(2, 500, 5_000)) == 2
    letters.close()
