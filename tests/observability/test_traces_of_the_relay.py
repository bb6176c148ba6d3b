"""The traces of waiting events do not grow while RabbitMQ is away."""

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import Postgres
from service.database import Connection
from service.errors import BrokerAway
from service.observability import tracing
from service.settings import Settings
from tests.conftest import serving
from tests.stage.broker import FULL_AFTER_ONE, bound_queue, connected
from tests.stage.collector import Collector, Received, ids_in
from tests.stage.factories import book, make_customer, make_session, make_settings
from tests.stage.holdings import number_all
from tests.stage.relaying import Broker, cursor, relaying, until_published


@pytest.fixture
def settings(postgres: Postgres, sql: Connection, rabbitmq: Broker, collector: Collector) -> Settings:  # noqa: ARG001 - emptied first
    """With short timeouts for RabbitMQ; every request is traced."""
    return make_settings(
        postgres.url(),
        broker_url=rabbitmq.url,
        confirm_timeout_ms=2_000,
        broker_connect_timeout_ms=300,
        trace_endpoint=collector.url,
        trace_sample_ratio=1,
    )


def failures(spans: list[Received]) -> list[bool]:
    """Whether each span failed."""
    return [span.failed for span in spans]


async def test_a_trace_has_the_relays_first_try_and_the_successful_one(
    engine: AsyncEngine, sql: Connection, settings: Settings, collector: Collector, rabbitmq: Broker
) -> None:
    customer, session = await make_customer(sql, settings), await make_session(sql, settings)
    with connected(rabbitmq.url) as connection:
        async with relaying(engine, settings) as relay:
            queue = bound_queue(connection, "tests.traced", "reservation.held.*")
            await number_all(engine, settings)
            await until_published(relay, sql, 1)
            async with serving(settings) as client:
                assert (await book(client, customer, session.seat_ids[0])).status_code == 201
            await number_all(engine, settings)
            async with tracing.exported(settings, "relay"):
                rabbitmq.pause()
                for _ in range(4):
                    with pytest.raises(BrokerAway):
                        await relay.step()
                rabbitmq.resume()
                await until_published(relay, sql, 2)
            assert await cursor(sql) == 2
        told = set()
        while (message := queue.get(no_ack=True)) is not None:
            told.add(message.headers.get("traceparent"))
    (request,) = collector.named("POST /customer/book")
    published, batches = collector.named("publish event"), collector.named("relay")
    assert {(span.trace, span.parent) for span in published} == {(request.trace, request.id)}
    assert failures(published) == failures(batches) == [True, False]
    assert (request.trace, published[1].id) in {ids_in(given) for given in told}
    assert [batch.links for batch in batches] == [[(span.trace, span.id)] for span in published]
    assert [span.links for span in published] == [[(batch.trace, batch.id)] for batch in batches]
    of_steps = {span.trace for span in collector.spans if span.service == "relay"} - {request.trace}
    assert of_steps == {batch.trace for batch in batches}, "what was dropped leaves nothing behind"


async def test_an_event_refused_repeatedly_has_one_failed_try(
    engine: AsyncEngine, sql: Connection, settings: Settings, collector: Collector, rabbitmq: Broker
) -> None:
    customer, session = await make_customer(sql, settings), await make_session(sql, settings)
    with connected(rabbitmq.url) as connection:
        async with relaying(engine, settings) as relay:
            await number_all(engine, settings)
            await until_published(relay, sql, 1)
            bound_queue(connection, "tests.full", "reservation.held.*", **FULL_AFTER_ONE)
            async with serving(settings) as client:
                for seat_id in session.seat_ids[:3]:
                    assert (await book(client, customer, seat_id)).status_code == 201
            await number_all(engine, settings)
            async with tracing.exported(settings, "relay"):
                for _ in range(6):
                    await relay.step()
    done = await cursor(sql) - 1
    assert done < 3
    traces = [span.trace for span in collector.named("POST /customer/book")]
    tries = {
        trace: failures([span for span in collector.named("publish event") if span.trace == trace]) for trace in traces
    }
    assert list(tries.values()) == [[False]] * done + [[True]] * (3 - done)
