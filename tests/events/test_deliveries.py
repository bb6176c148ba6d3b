"""What RabbitMQ hands to one inbox: a bounded number, of which nothing outlives the connection that it came through."""

import pytest

from dev.postgres import Postgres
from service.broker.consumer import DeadLetters
from service.broker.topology import EXPIRED_QUEUE
from service.database import Connection
from service.errors import BrokerAway
from service.settings import Settings
from tests.stage.broker import send_letter, until_waiting
from tests.stage.factories import make_settings
from tests.stage.relaying import Broker

LETTERS = 10


@pytest.fixture
def settings(postgres: Postgres, sql: Connection, rabbitmq: Broker) -> Settings:  # noqa: ARG001 - emptied first
    """With a broker, and ten letters that wait there."""
    for n in range(LETTERS):
        send_letter(rabbitmq.url, str(n).encode())
    return make_settings(postgres.url(), broker_url=rabbitmq.url, inbox_batch_max=2)


async def test_inbox_prefetches_two_batches(settings: Settings, rabbitmq: Broker) -> None:
    letters = DeadLetters(settings)
    assert len(letters.take(2, 1_000, 10_000)) == 2
    await until_waiting(rabbitmq.url, EXPIRED_QUEUE, LETTERS - 4)
    letters.close()


async def test_prefetched_messages_of_a_lost_connection_come_again(settings: Settings, rabbitmq: Broker) -> None:
    letters = DeadLetters(settings)
    lost = letters.take(2, 1_000, 10_000)
    letters.keep_alive()
    letters.close()
    await until_waiting(rabbitmq.url, EXPIRED_QUEUE, LETTERS)
    with pytest.raises(BrokerAway):
        letters.acknowledge(lost)
    for _ in range(LETTERS // 2):
        taken = letters.take(2, 1_000, 10_000)
        assert len(taken) == 2
        letters.acknowledge(taken)
    letters.close()
    await until_waiting(rabbitmq.url, EXPIRED_QUEUE, 0)
