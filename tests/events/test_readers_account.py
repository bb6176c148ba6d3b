"""The account of compose.yml for programs that read events, in a real RabbitMQ: it can publish nothing anywhere."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from amqp.exceptions import AccessRefused
from kombu import Connection, Exchange, Queue

from service.broker.topology import DEAD, EVENTS, EXPIRED_QUEUE, HINTS, PARKED_QUEUE
from tests.stage.broker import connected, declare_inbox
from tests.stage.relaying import Broker

COMPOSE = Path(__file__).parents[2] / "compose.yml"
OWN = "events.shop"


@pytest.fixture
def reader(rabbitmq: Broker) -> Iterator[Connection]:
    """A connection of the account, whose patterns are those of compose.yml."""
    content = yaml.safe_load(COMPOSE.read_text())["configs"]["definitions"]["content"].replace("$$", "$")
    (allowed,) = [entry for entry in json.loads(content)["permissions"] if entry["user"] == "events"]
    rabbitmq.control("add_user", "events", "events")
    rabbitmq.control("set_permissions", "events", allowed["configure"], allowed["write"], allowed["read"])
    with connected(rabbitmq.url) as connection:
        declare_inbox(connection)
        for exchange in (EVENTS, HINTS):
            exchange(connection.channel()).declare()
    address = urlsplit(rabbitmq.url)
    with connected(f"amqp://events:events@{address.hostname}:{address.port}//") as connection:
        yield connection
    rabbitmq.control("delete_user", "events")


def _publish(connection: Connection, exchange: str, key: str = "") -> None:
    channel = connection.channel()
    channel.confirm_select()
    channel.basic_publish_confirm(channel.prepare_message(b"{}", properties={}), exchange, key)


def _declare(connection: Connection, name: str, **arguments: Any) -> None:
    Queue(name, queue_arguments=arguments, durable=False, exclusive=True)(connection.channel()).declare()


def _bind(connection: Connection, source: str) -> None:
    _declare(connection, OWN)
    connection.channel().queue_bind(OWN, source, "#")


def _forward(connection: Connection) -> None:
    channel = connection.channel()
    Exchange(OWN, "topic", durable=False)(channel).declare()
    channel.exchange_bind(DEAD.name, OWN, "#")


def test_reader_receives_events(reader: Connection, rabbitmq: Broker) -> None:
    _bind(reader, EVENTS.name)
    with connected(rabbitmq.url) as connection:
        _publish(connection, EVENTS.name, "reservation.held.1")
    assert Queue(OWN)(reader.channel()).get(no_ack=True).body in (b"{}", "{}")


FORBIDDEN: dict[str, Callable[[Connection], Any]] = {
    "publish events": lambda it: _publish(it, EVENTS.name),
    "publish hints": lambda it: _publish(it, HINTS.name),
    "publish dead letters": lambda it: _publish(it, DEAD.name),
    "publish to the inbox's queue": lambda it: _publish(it, "", EXPIRED_QUEUE.name),
    "read hints": lambda it: _bind(it, HINTS.name),
    "read dead letters": lambda it: _bind(it, DEAD.name),
    "take dead letters": lambda it: EXPIRED_QUEUE(it.channel()).get(),
    "take parked letters": lambda it: PARKED_QUEUE(it.channel()).get(),
    "delete the inbox's queue": lambda it: EXPIRED_QUEUE(it.channel()).delete(),
    "purge the inbox's queue": lambda it: EXPIRED_QUEUE(it.channel()).purge(),
    "declare a queue of ours": lambda it: _declare(it, "rowlock.more"),
    "let its dead letters be ours": lambda it: _declare(it, OWN, **{"x-dead-letter-exchange": DEAD.name}),
    "let its dead letters go to the inbox": lambda it: _declare(
        it, OWN, **{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": EXPIRED_QUEUE.name}
    ),
    "bind an exchange of its own to ours": _forward,
}


@pytest.mark.parametrize("deed", FORBIDDEN.values(), ids=FORBIDDEN)
def test_reader_can_do_nothing_else(reader: Connection, deed: Callable[[Connection], Any]) -> None:
    with pytest.raises(AccessRefused):
        deed(reader)
