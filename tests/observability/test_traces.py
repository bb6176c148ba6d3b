"""A trace goes from the request to the cache, and links to the batches on its way."""

import asyncio
import time
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import Redis
from expirer.loops import sweep
from service.database import Connection
from service.observability import tracing
from service.settings import Settings
from tests.conftest import serving
from tests.stage.broker import bound_queue, connected
from tests.stage.collector import Collector, Received, ids_in
from tests.stage.factories import book, make_customer, make_customers, make_overdue, make_session, make_settings, pay
from tests.stage.forcing import PATIENT, locked
from tests.stage.processes import api_process, expirer_process
from tests.stage.relaying import Broker
from tests.stage.waiting import until, until_lock_waits

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-00"}


@pytest.fixture
def settings(postgres: Postgres, sql: Connection, collector: Collector) -> Settings:  # noqa: ARG001 - emptied first
    """Every request is traced."""
    return make_settings(postgres.url(), trace_endpoint=collector.url, trace_sample_ratio=1)


def only(spans: list[Received]) -> Received:
    """The only span."""
    (span,) = spans
    return span


async def told_of_an_unpaid_hold(sql: Connection, url: str, collector: Collector, **shared: Any) -> set[str | None]:
    """A traced hold expires while all processes run. Returns the `traceparent` of each published message."""
    customer = await make_customer(sql, make_settings(url))
    session = await make_session(sql, make_settings(url))
    async with api_process(url, **shared) as api, expirer_process(url, **shared):

        async def both_read() -> bool:
            return bool(await sql.fetchval("select count(*) = 2 from cursors where name in ('broker', 'cache')"))

        await until(both_read, "a cursor of the relay and one of the projector")
        with connected(shared["broker_url"]) as connection:
            queue = bound_queue(connection, "tests.traced")
            async with httpx.AsyncClient(base_url=api.url) as client:
                assert (await book(client, customer, session.seat_ids[0])).status_code == 201

            def is_whole() -> bool:
                # The events of the hold and of its expiry.
                return len(collector.named("bring event to the cache")) == 2 == len(collector.named("publish event"))

            await collector.until(is_whole, "both events in RabbitMQ and in the cache")
            told = set()
            while (message := queue.get(no_ack=True)) is not None:
                told.add(message.headers.get("traceparent"))
    return told


async def test_one_trace_spans_request_relay_inbox_and_projector(
    postgres: Postgres, sql: Connection, rabbitmq: Broker, redis: Redis | Container, collector: Collector
) -> None:
    told = await told_of_an_unpaid_hold(
        sql,
        postgres.url(),
        collector,
        broker_url=rabbitmq.url,
        redis_url=redis.url,
        redis_timeout_ms=2_000,
        hold_seconds=1,
        sweep_interval_ms=60_000,
        trace_endpoint=collector.url,
        trace_sample_ratio=1,
    )
    request = only(collector.named("POST /customer/book"))
    spans = collector.trace(request.trace)
    names = [span.name for span in spans]
    assert {"lock accounts", "lock seats", "write reservations", "commit"} <= set(names)
    assert names.count("publish event") == names.count("bring event to the cache") == 2
    letter = only([span for span in spans if span.name == "settle dead letter"])
    published = [span for span in spans if span.name == "publish event"]
    # Each span continues the one before it: request, relay, dead letter, inbox, relay.
    assert request.id in {span.parent for span in published}
    assert letter.parent in {span.id for span in published}
    assert letter.id in {span.parent for span in published}
    assert {span.parent for span in collector.named("bring event to the cache")} == {request.id, letter.id}
    # The untraced event of the session may be among the messages.
    assert {ids_in(given) for given in told if given} == {(span.trace, span.id) for span in published}
    assert {span.service for span in spans} == {"rowlock-api", "rowlock-expirer"}
    batch = only(collector.named("inbox"))
    assert batch.trace != request.trace
    assert (batch.links, letter.links) == ([(letter.trace, letter.id)], [(batch.trace, batch.id)])
    assert "commit" in {span.name for span in collector.trace(batch.trace) if span.parent == batch.id}


async def test_a_batch_links_to_the_traces_of_its_members_only(
    engine: AsyncEngine, sql: Connection, settings: Settings, collector: Collector
) -> None:
    session = await make_session(sql, settings)
    async with serving(settings) as client:
        for n, customer in enumerate(await make_customers(sql, settings, 2)):
            await book(client, customer, session.seat_ids[n])
        async with serving(settings.model_copy(update={"trace_sample_ratio": 0})) as untraced:
            await book(untraced, await make_customer(sql, settings), session.seat_ids[2])
    async with tracing.exported(settings, "sweep"):
        await make_overdue(sql, *[row["id"] for row in await sql.fetch("select id from reservations")])
        await sweep.step(engine, settings)
    assert await sql.fetchval("select count(*) from reservations where state = 'EXPIRED'") == 3
    requests = collector.named("POST /customer/book")
    members = collector.named("expire hold")
    assert len(requests) == 2
    assert {(span.trace, span.parent) for span in members} == {(span.trace, span.id) for span in requests}
    assert set(only(collector.named("sweep")).links) == {(span.trace, span.id) for span in members}
    stored = await sql.fetch("select traceparent from events where kind = 'reservation.expired'")
    given = [row["traceparent"] for row in stored]
    assert given.count(None) == 1
    assert {ids_in(one) for one in given if one} == {(span.trace, span.id) for span in members}


async def test_lock_wait_and_commit_are_spans_with_their_duration(
    postgres: Postgres, sql: Connection, settings: Settings, collector: Collector
) -> None:
    customer = await make_customer(sql, settings)
    session = await make_session(sql, settings)
    async with serving(settings.model_copy(update=PATIENT)) as client:
        async with locked(postgres, "seats", session.seat_ids[0]):
            booking = asyncio.create_task(book(client, customer, session.seat_ids[0]))
            await until_lock_waits(sql)
            began = time.monotonic()
            await asyncio.sleep(0.1)
            waited = time.monotonic() - began
        reply = await booking
        await pay(client, customer, reply.json()["reservationId"])
    request = only(collector.named("POST /customer/book"))
    lock = next(span for span in collector.trace(request.trace) if span.name == "lock seats")
    assert lock.parent == request.id
    assert waited <= lock.seconds <= request.seconds
    assert lock.attributes["db.response.returned_rows"] == 1
    paid = only(collector.named("PUT /customer/pay/{reservationId}"))
    assert [span.parent for span in collector.named("commit")] == [request.id, paid.id]
    assert (request.trace, request.id) in paid.links
