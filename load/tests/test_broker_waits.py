"""Every wait for RabbitMQ ends within its setting, and no answer that comes late is taken for another one's."""

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

import pytest
from kombu import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import Postgres
from dev.processes import free_port
from service.broker.link import Link, hear
from service.broker.publisher import Published, Publisher
from service.database import Connection as Sql
from service.errors import BrokerAway
from service.events import log as event_log
from service.events.log import Logged
from service.settings import Settings
from tests.stage.broker import FULL_AFTER_ONE, bound_queue, connected, received
from tests.stage.factories import make_settings
from tests.stage.holdings import make_numbered
from tests.stage.processes import ROOT
from tests.stage.relaying import Broker

CONNECT_MS, ANSWER_MS = 1_500, 2_000
SLACK_SECONDS = 5
"""On a machine that is busy with other tests."""


@pytest.fixture
def settings(postgres: Postgres, sql: Sql, rabbitmq: Broker) -> Settings:  # noqa: ARG001 - emptied first
    """With a broker that is not waited for long."""
    return with_broker(postgres.url(), rabbitmq.url)


def with_broker(database_url: str, url: str) -> Settings:
    """Short times, each its own."""
    return make_settings(
        database_url, broker_url=url, broker_connect_timeout_ms=CONNECT_MS, confirm_timeout_ms=ANSWER_MS
    )


@pytest.fixture
async def events(engine: AsyncEngine, sql: Sql, settings: Settings) -> list[Logged]:
    """Four holds, to be published."""
    await make_numbered(engine, sql, settings, 4)
    return await event_log.read_numbered(sql, 0, 10)


@contextmanager
def publisher_of(settings: Settings) -> Iterator[Publisher]:
    """A publisher that is closed at the end."""
    publisher = Publisher(settings)
    try:
        yield publisher
    finally:
        publisher.close()


@contextmanager
def ends_within(milliseconds: int) -> Iterator[None]:
    """The block raises BrokerAway within this time."""
    began = time.monotonic()
    with pytest.raises(BrokerAway):
        yield
    assert time.monotonic() - began < milliseconds / 1000 + SLACK_SECONDS


def test_refused_connection_is_noticed_at_once(postgres: Postgres) -> None:
    settings = with_broker(postgres.url(), f"amqp://guest:guest@127.0.0.1:{free_port()}//")
    with publisher_of(settings) as publisher, ends_within(0):
        publisher.publish([], [])


def test_unanswered_connection_times_out(settings: Settings, rabbitmq: Broker) -> None:
    rabbitmq.pause()
    with publisher_of(settings) as publisher, ends_within(CONNECT_MS):
        publisher.publish([], [])


def test_confirms_that_do_not_come_are_given_up_after_their_time(
    settings: Settings, rabbitmq: Broker, events: list[Logged]
) -> None:
    with publisher_of(settings) as publisher:
        publisher.publish(events[:1], [])
        rabbitmq.pause()
        with ends_within(ANSWER_MS):
            publisher.publish(events[1:], [])


def test_broker_that_stops_reading_times_out(settings: Settings, rabbitmq: Broker, events: list[Logged]) -> None:
    with publisher_of(settings) as publisher:
        publisher.publish(events[:1], [])
        rabbitmq.pause()
        with ends_within(2 * ANSWER_MS):
            publisher.publish(events * 20_000, [])


def test_late_refusal_does_not_answer_the_next_message(
    settings: Settings, rabbitmq: Broker, events: list[Logged]
) -> None:
    created, *holds = events
    with connected(rabbitmq.url) as connection, publisher_of(settings) as publisher:
        full = bound_queue(connection, "tests.full", "reservation.held.*", **FULL_AFTER_ONE)
        assert publisher.publish(holds[:1], []) == Published(1, 0)
        rabbitmq.pause()
        with pytest.raises(BrokerAway, match="2 events were not confirmed in time"):
            publisher.publish(holds[1:3], [])
        rabbitmq.resume()
        assert publisher.publish([created, created], []) == Published(2, 0)
        assert publisher.publish([created, holds[3], created], []) == Published(1, 0), "only its own"
        assert received(full, 1)[0]["number"] == holds[0].number


def test_late_confirm_does_not_answer_the_next_message(
    settings: Settings, rabbitmq: Broker, events: list[Logged]
) -> None:
    created, *holds = events
    with connected(rabbitmq.url) as connection, publisher_of(settings) as publisher:
        bound_queue(connection, "tests.full", "reservation.held.*", **FULL_AFTER_ONE)
        assert publisher.publish(holds[:1], []) == Published(1, 0)
        rabbitmq.pause()
        with pytest.raises(BrokerAway):
            publisher.publish([created, created], [])
        rabbitmq.resume()
        assert publisher.publish(holds[1:], []) == Published(0, 0)


@dataclass(slots=True)
class HalfAnswers:
    """A TCP proxy before RabbitMQ; when `halving`, it passes on three bytes of the next answer, and then nothing."""

    broker_port: int
    port: int = 0
    halving: bool = False
    stuck: asyncio.Event = field(default_factory=asyncio.Event)

    async def join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Both ways, until one side hangs up."""
        from_broker, to_broker = await asyncio.open_connection("127.0.0.1", self.broker_port)
        back = asyncio.create_task(self._answers(from_broker, writer))
        while data := await reader.read(65_536):
            to_broker.write(data)
        back.cancel()
        for side in (writer, to_broker):
            side.transport.abort()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if self.halving:
                writer.write(data[:3])
                self.stuck.set()
                return
            writer.write(data)


@asynccontextmanager
async def half_answers(rabbitmq: Broker) -> AsyncIterator[HalfAnswers]:
    """The proxy, listening."""
    proxy = HalfAnswers(rabbitmq.port)
    listener = await asyncio.start_server(proxy.join, "127.0.0.1", 0)
    proxy.port = listener.sockets[0].getsockname()[1]
    async with listener:
        yield proxy


@pytest.mark.parametrize("halved", ["a confirm", "the answer to a call"])
async def test_half_an_answer_times_out(
    postgres: Postgres, rabbitmq: Broker, events: list[Logged], halved: str
) -> None:
    async with half_answers(rabbitmq) as proxy:
        url = re.sub(r":\d+//$", f":{proxy.port}//", rabbitmq.url)
        with publisher_of(with_broker(postgres.url(), url)) as publisher:
            await asyncio.to_thread(publisher.publish, events[:1], [])
            proxy.halving = True
            with ends_within(2 * ANSWER_MS):
                if halved == "a confirm":
                    await asyncio.to_thread(publisher.publish, events[1:], [])
                else:
                    await asyncio.to_thread(open_a_channel, publisher)
            assert proxy.stuck.is_set()


def open_a_channel(publisher: Publisher) -> None:
    """A call that has no time of its own."""
    with publisher._link.connected() as connection:
        connection.channel()


def test_lost_connection_is_not_mistaken_for_a_silent_one(settings: Settings, rabbitmq: Broker) -> None:
    link = Link(settings)
    with pytest.raises(BrokerAway), link.connected() as connection:
        hear_until_lost(connection, rabbitmq)
    assert link.connection is None


def hear_until_lost(connection: Connection, rabbitmq: Broker) -> None:
    """Returns after half a minute in which the network was not seen to have lost it."""
    rabbitmq.pause()
    socket = connection.connection.transport.sock
    with suppress(TimeoutError):
        # More than the two kernels keep, so that something is unacknowledged: ours gives up after a second.
        while True:
            socket.send(bytes(65_536))
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert not hear(connection, 0.1)


def test_the_api_knows_nothing_of_rabbitmq() -> None:
    program = "import sys, service.app; assert not {'kombu', 'amqp', 'service.broker'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
