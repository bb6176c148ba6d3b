"""A parked message that is sent back is removed only once it is safe in the inbox's queue."""

from collections.abc import Callable

import pytest
from kombu import Queue

from dev.postgres import Postgres
from service.broker.parked import ParkedMessages
from service.broker.topology import EXPIRED_QUEUE, PARKED_QUEUE
from service.database import Connection
from service.errors import BrokerAway
from service.settings import Settings
from tests.stage.broker import FULL_AFTER_ONE, connected, declare_inbox, until_waiting
from tests.stage.factories import make_settings
from tests.stage.relaying import Broker


@pytest.fixture
def settings(postgres: Postgres, sql: Connection, rabbitmq: Broker) -> Settings:  # noqa: ARG001 - emptied first
    """With a broker, and a message that is parked there."""
    with connected(rabbitmq.url) as connection:
        declare_inbox(connection)
        connection.Producer().publish(b"{}", routing_key=PARKED_QUEUE.name, delivery_mode=2)
    return make_settings(postgres.url(), broker_url=rabbitmq.url, confirm_timeout_ms=1_000)


def delete(rabbitmq: Broker) -> None:
    """No queue takes the message, and it is confirmed anyway."""
    with connected(rabbitmq.url) as connection:
        EXPIRED_QUEUE(connection.channel()).delete()


def pause(rabbitmq: Broker) -> None:
    """There is no answer in time."""
    rabbitmq.pause()


def fill(rabbitmq: Broker) -> None:
    """The message is refused, by a queue that is full of the one that is in it."""
    delete(rabbitmq)
    full = Queue(EXPIRED_QUEUE.name, queue_arguments=FULL_AFTER_ONE)
    with connected(rabbitmq.url) as connection:
        full(connection.channel()).declare()
        connection.Producer().publish(b"{}", routing_key=full.name)


@pytest.mark.parametrize("go_wrong", [delete, pause, fill])
async def test_message_refused_by_the_inbox_queue_stays_parked(
    settings: Settings, rabbitmq: Broker, go_wrong: Callable[[Broker], None]
) -> None:
    messages = ParkedMessages(settings)

    def choose(_: str) -> bool:
        go_wrong(rabbitmq)
        return True

    try:
        with pytest.raises(BrokerAway):
            messages.requeue(choose)
        rabbitmq.ensure_up()
        await until_waiting(rabbitmq.url, PARKED_QUEUE, 1)
    finally:
        messages.close()
