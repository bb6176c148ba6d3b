"""The connection to RabbitMQ closes after any error, and the next goes to the next node. Heartbeats keep it, and reveal
that it is lost.
"""

import time
from contextlib import suppress

import pytest
from kombu.exceptions import OperationalError
from pydantic import SecretStr

from dev.postgres import Postgres
from dev.processes import free_port
from service.broker.consumer import DeadLetters
from service.broker.link import Link
from service.database import Connection
from service.errors import BrokerAway
from service.settings import Settings
from tests.stage.broker import send_letter
from tests.stage.factories import make_settings
from tests.stage.inboxes import unsettled
from tests.stage.relaying import Broker
from tests.stage.waiting import until


@pytest.fixture
def settings(postgres: Postgres, sql: Connection, rabbitmq: Broker) -> Settings:  # noqa: ARG001 - emptied first
    """With a broker."""
    return make_settings(postgres.url(), broker_url=rabbitmq.url, confirm_timeout_ms=60_000)


def with_heartbeats(settings: Settings) -> Settings:
    """With a heartbeat each second, which the driver reads from the URL."""
    assert settings.broker_url is not None
    url = f"{settings.broker_url.get_secret_value()}?heartbeat=1"
    return settings.model_copy(update={"broker_url": SecretStr(url)})


def with_nodes(settings: Settings, *urls: str) -> Settings:
    """With these nodes."""
    return settings.model_copy(update={"broker_url": SecretStr(";".join(urls))})


def test_nodes_that_are_down_are_passed_over(settings: Settings, rabbitmq: Broker) -> None:
    link = Link(with_nodes(settings, *(f"amqp://127.0.0.1:{free_port()}" for _ in range(2)), rabbitmq.url))
    with link.connected() as connection:
        assert connection.connected
    link.close()


def test_the_last_of_the_nodes_gives_the_error(settings: Settings) -> None:
    down = [free_port(), free_port()]
    link = Link(with_nodes(settings, *(f"amqp://127.0.0.1:{port}" for port in down)))
    with pytest.raises(BrokerAway, match=f"^RabbitMQ at 127.0.0.1:{down[1]} does not answer"), link.connected():
        pass


def test_the_next_connection_goes_to_the_next_node(settings: Settings, rabbitmq: Broker) -> None:
    link = Link(with_nodes(settings, *(f"{rabbitmq.url}?heartbeat={seconds}" for seconds in (7, 9))))
    used = []
    for _ in range(3):
        with suppress(BrokerAway), link.connected() as connection:
            used.append(connection.heartbeat)
            raise OperationalError
    assert used == [7, 9, 7]


def test_a_connection_ends_with_an_error_that_is_not_of_rabbitmq(settings: Settings) -> None:
    link = Link(settings)
    with link.connected() as connection:
        pass
    assert link.connection is connection
    with pytest.raises(ZeroDivisionError), link.connected():
        raise ZeroDivisionError
    assert link.connection is None, "a late answer would be mistaken for the next one"


async def test_silent_rabbitmq_is_given_up_after_some_heartbeats(settings: Settings, rabbitmq: Broker) -> None:
    letters = DeadLetters(with_heartbeats(settings))
    letters.take(1, 0, 10)
    rabbitmq.pause()

    async def noticed() -> bool:
        try:
            letters.take(1, 0, 10)
        except BrokerAway:
            return True
        return False

    await until(noticed, "the end of the connection")
    letters.close()


def test_heartbeats_keep_the_connection_and_its_messages(settings: Settings, rabbitmq: Broker) -> None:
    send_letter(rabbitmq.url, b"{}")
    letters = DeadLetters(with_heartbeats(settings))
    taken = letters.take(1, 0, 10_000)
    would_be_cut_off = time.monotonic() + 4
    while time.monotonic() < would_be_cut_off:
        letters.keep_alive()
    letters.acknowledge(taken)
    letters.close()
    assert len(taken) == 1
    assert unsettled(rabbitmq.url) == 0
