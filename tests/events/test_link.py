"""The connection to RabbitMQ: it ends with any error, and is kept, or seen to be lost, by heartbeats."""

import time

import pytest

from dev.postgres import Postgres
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


def test_a_connection_ends_with_an_error_that_is_not_of_rabbitmq(settings: Settings) -> None:
    link = Link(settings)
    with link.connected() as connection:
        pass
    assert link.connection is connection
    with pytest.raises(ZeroDivisionError), link.connected():
        raise ZeroDivisionError
    assert link.connection is None, "what was said and not answered would be answered to the next"


async def test_silent_rabbitmq_is_given_up_after_some_heartbeats(
    settings: Settings, rabbitmq: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.broker.link.HEARTBEAT_SECONDS", 1)
    letters = DeadLetters(settings)
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


def test_heartbeats_keep_the_connection_and_its_messages(
    settings: Settings, rabbitmq: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.broker.link.HEARTBEAT_SECONDS", 1)
    send_letter(rabbitmq.url, b"{}")
    letters = DeadLetters(settings)
    taken = letters.take(1, 0, 10_000)
    would_be_cut_off = time.monotonic() + 4
    while time.monotonic() < would_be_cut_off:
        letters.keep_alive()
    letters.acknowledge(taken)
    letters.close()
    assert len(taken) == 1
    assert unsettled(rabbitmq.url) == 0
