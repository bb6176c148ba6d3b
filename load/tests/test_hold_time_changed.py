"""The time to pay is changed from one start to the next: expirers of both times are at work until the last is replaced.

No seat is released later than by the sweep alone, which is the guarantee: a hint of one time that waits among those
of the other may come too late or too early. Afterwards all are as punctual as before, and the old queue is gone.
"""

import asyncio
import time
from contextlib import AsyncExitStack
from uuid import UUID

import pytest
from amqp.exceptions import NotFound

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import RabbitMQ, Redis
from expirer.loops import queues
from load.lateness import percentile, read_lateness
from service.broker.topology import PARKED_QUEUE, holds_queue
from service.database import Connection
from service.settings import Settings
from tests.stage.broker import connected, message_count
from tests.stage.factories import hold_of, make_customer, make_session
from tests.stage.forcing import give_all
from tests.stage.letters import consumers
from tests.stage.processes import expirer_process
from tests.stage.stalls import measured_on_a_working_machine
from tests.stage.waiting import WAIT_SECONDS_MAX, until

BROKER_MS_MAX, SWEEP_MS_MAX = 300, 1_200
BEFORE, AFTER = 2, 4
"""Seconds to pay."""
HOLDS, OVER_SECONDS = 600, 6
HOLDS_AT_ONCE = 4
RETIRED_SECONDS_MAX = 2 * queues.INTERVAL_SECONDS + WAIT_SECONDS_MAX
"""At one look the queue gets no more hints, at the next it has run dry."""


async def lateness_of(sql: Connection, settings: Settings, *hold_seconds: int) -> list[float]:
    """In milliseconds, of holds of these times by turns, evenly over a while; none was early, and all came back."""
    customer = await make_customer(sql, settings)
    seat_ids = (await make_session(sql, settings, HOLDS)).seat_ids
    ids: list[UUID] = []
    began = time.monotonic()
    for n in range(0, HOLDS, HOLDS_AT_ONCE):
        await asyncio.sleep(began + n * OVER_SECONDS / HOLDS - time.monotonic())
        requests = [hold_of(customer, seat_id) for seat_id in seat_ids[n : n + HOLDS_AT_ONCE]]
        ids += await give_all(sql, requests, hold_seconds[n // HOLDS_AT_ONCE % len(hold_seconds)])
    late_ms = await read_lateness(sql, ids)
    assert len(late_ms) == HOLDS
    assert min(late_ms.values()) >= 0
    return list(late_ms.values())


async def until_connected(broker_url: str, count: int) -> None:
    """Returns when this many inboxes consume dead letters."""

    async def connected() -> bool:
        return consumers(broker_url) == count

    await until(connected, f"{count} inboxes")


def missed(what: str, late_ms: list[float], ms_max: float) -> list[str]:
    """What to complain of."""
    late = percentile(late_ms, 99)
    return [f"{what}: 99 of 100 only within {late:.0f} ms"] if late > ms_max else []


@pytest.mark.timeout(600)
async def test_changed_hold_time_keeps_expiry_punctual(
    postgres: Postgres, sql: Connection, settings: Settings, redis: Redis | Container, rabbitmq: RabbitMQ | Container
) -> None:
    urls = {"redis_url": redis.url, "broker_url": rabbitmq.url}

    async def measure() -> list[str]:
        async with AsyncExitStack() as stack:
            async with expirer_process(postgres.url(), hold_seconds=BEFORE, **urls):
                await until_connected(rabbitmq.url, 1)
                before = await lateness_of(sql, settings, BEFORE)
                assert is_there(rabbitmq.url, BEFORE)
                await stack.enter_async_context(expirer_process(postgres.url(), hold_seconds=AFTER, **urls))
                await until_connected(rabbitmq.url, 2)
                both = await lateness_of(sql, settings, BEFORE, AFTER)
            after = await lateness_of(sql, settings, AFTER)
            await until_retired(sql, rabbitmq.url)
        assert message_count(rabbitmq.url, PARKED_QUEUE) == 0
        return [
            *missed("before", before, BROKER_MS_MAX),
            *missed("with both", both, SWEEP_MS_MAX),
            *missed("after", after, BROKER_MS_MAX),
        ]

    await measured_on_a_working_machine(measure)


async def until_retired(sql: Connection, broker_url: str) -> None:
    """Returns when the old queue and its row are gone. The queue of the new time exists."""

    async def retired() -> bool:
        noted = [row["ttl_ms"] for row in await sql.fetch("select ttl_ms from hold_queues")]
        return noted == [AFTER * 1000] and not is_there(broker_url, BEFORE)

    await until(retired, "the end of the old queue", RETIRED_SECONDS_MAX)
    assert is_there(broker_url, AFTER)


def is_there(broker_url: str, hold_seconds: int) -> bool:
    """Whether RabbitMQ has the queue of hints for this time to pay."""
    with connected(broker_url) as connection:
        try:
            holds_queue(hold_seconds * 1000, 0)(connection.channel()).queue_declare(passive=True)
        except NotFound:
            return False
    return True
