"""A trace goes from the request to the cache and links to the batches it was in; who is not traced costs nothing."""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.containers import Container
from dev.postgres import Postgres, free_port
from dev.servers import Redis
from expirer.loops import sweep
from service.database import Connection
from service.observability import tracing
from service.settings import Settings
from tests.conftest import serving
from tests.stage.broker import bound_queue, connected
from tests.stage.collector import Collector, Received, collecting
from tests.stage.factories import book, make_customer, make_customers, make_overdue, make_session, make_settings, pay
from tests.stage.forcing import locked
from tests.stage.processes import api_process, expirer_process
from tests.stage.relaying import Broker
from tests.stage.sources import ROOT
from tests.stage.waiting import until, until_lock_waits

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-00"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Takes traces."""
    with collecting() as made:
        yield made


@pytest.fixture
def settings(postgres: Postgres, sql: Connection, collector: Collector) -> Settings:  # noqa: ARG001 - emptied first
    """Every request is traced."""
    return make_settings(postgres.url(), trace_endpoint=collector.url, trace_sample_ratio=1)


def only(spans: list[Received]) -> Received:
    """The one that there is."""
    (span,) = spans
    return span


async def told_of_an_unpaid_hold(sql: Connection, url: str, collector: Collector, **shared: Any) -> set[str | None]:
    """One that a traced customer lets run out while everything runs; the `traceparent` of each message to others."""
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
                # The hold's event and that of its end.
                return len(collector.named("bring event to the cache")) == 2 == len(collector.named("publish event"))

            await collector.until(is_whole, "both events in RabbitMQ and in the cache")
            told = set()
            while (message := queue.get(no_ack=True)) is not None:
                told.add(message.headers.get("traceparent"))
    return told


async def test_one_trace_spans_request_relay_dead_letter_inbox_and_projector(
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
    assert {"lock accounts", "lock seats", "insert events", "commit"} <= set(names)
    assert names.count("publish event") == names.count("bring event to the cache") == 2
    letter = only([span for span in spans if span.name == "settle dead letter"])
    published = [span for span in spans if span.name == "publish event"]
    # Each went on where the one before it had stopped: request, relay, dead letter, inbox, relay.
    assert request.id in {span.parent for span in published}
    assert letter.parent in {span.id for span in published}
    assert letter.id in {span.parent for span in published}
    assert {span.parent for span in collector.named("bring event to the cache")} == {request.id, letter.id}
    # The event of the session, which nobody traced, may be among them.
    assert told - {None} == {f"00-{span.trace}-{span.id}-01" for span in published}
    assert {span.service for span in spans} == {"rowlock-api", "rowlock-expirer"}
    batch = only(collector.named("inbox"))
    assert batch.trace != request.trace
    assert (batch.links, letter.links) == ([(letter.trace, letter.id)], [(batch.trace, batch.id)])
    assert "commit" in {span.name for span in collector.trace(batch.trace) if span.parent == batch.id}


async def test_a_batch_links_to_the_traces_of_its_members_and_to_no_other(
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
    assert {row["traceparent"] for row in stored} == {None, *(f"00-{span.trace}-{span.id}-01" for span in members)}


async def test_the_wait_for_a_lock_and_the_commit_are_spans_with_their_time(
    postgres: Postgres, sql: Connection, settings: Settings, collector: Collector
) -> None:
    customer = await make_customer(sql, settings)
    session = await make_session(sql, settings)
    async with serving(settings) as client:
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


async def test_what_is_not_sampled_makes_no_span_and_stores_nothing(
    engine: AsyncEngine, sql: Connection, settings: Settings, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry.sdk.trace import Tracer  # noqa: PLC0415 - only looked at here

    made: list[str] = []
    start_span = Tracer.start_span

    def note_span(tracer: Tracer, name: str, *arguments: Any, **options: Any) -> Any:
        made.append(name)
        return start_span(tracer, name, *arguments, **options)

    monkeypatch.setattr(Tracer, "start_span", note_span)
    customer = await make_customer(sql, settings)
    session = await make_session(sql, settings)
    unsampled = settings.model_copy(update={"trace_sample_ratio": 0})
    async with serving(unsampled) as client:
        assert (await book(client, customer, session.seat_ids[0])).status_code == 201
        await make_overdue(sql, *[row["id"] for row in await sql.fetch("select id from reservations")])
        await sweep.step(engine, settings)
        assert made == []
        tracing._state.ratio = 1
        await book(client, customer, session.seat_ids[1])
        assert made[0] == "POST"
    rows = await sql.fetch("select traceparent from events order by id")
    assert [row["traceparent"] is None for row in rows] == [True, True, True, False]
    assert len(collector.named("POST /customer/book")) == 1


@pytest.mark.parametrize(
    ("ratio", "proxies", "given", "is_traced"),
    [
        (0, "", SAMPLED, False),
        (1, "", UNSAMPLED, True),
        (0, "127.0.0.0/8", SAMPLED, True),
        (1, "127.0.0.0/8", UNSAMPLED, False),
        (1, "127.0.0.0/8", {}, True),
    ],
)
async def test_everybody_s_trace_goes_on_but_only_a_trusted_proxy_decides_whether_it_is_recorded(  # noqa: PLR0913
    settings: Settings, collector: Collector, *, ratio: float, proxies: str, given: dict[str, str], is_traced: bool
) -> None:
    asked = make_settings(
        settings.database_url.get_secret_value(),
        trace_endpoint=collector.url,
        trace_sample_ratio=ratio,
        trusted_proxies=proxies,
    )
    async with serving(asked) as client:
        await client.get("/customer/list-sessions", headers=given)
    spans = collector.named("GET /customer/list-sessions")
    assert len(spans) == is_traced
    if given and spans:
        assert [(span.trace, span.parent) for span in spans] == [(TRACE, PARENT)]


@pytest.mark.parametrize("given", ["", "00-0-0-01", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01", "é" * 9])
async def test_a_parent_that_can_t_be_read_is_a_trace_of_its_own(
    settings: Settings, collector: Collector, given: str
) -> None:
    async with serving(settings) as client:
        await client.get("/customer/list-sessions", headers=[(b"traceparent", given.encode())])
    span = only(collector.named("GET /customer/list-sessions"))
    assert (span.trace != TRACE, span.parent) == (True, "")


async def test_health_checks_are_not_traced(settings: Settings, collector: Collector) -> None:
    async with serving(settings) as client:
        for path in ("/livez", "/readyz", "/customer/list-sessions"):
            assert (await client.get(path)).status_code == 200
    only([span for span in collector.spans if span.attributes.get("http.request.method")])


async def test_a_health_check_is_no_part_of_the_request_before_it_on_its_connection(
    settings: Settings, collector: Collector
) -> None:
    async with serving(settings) as client:
        before = tracing.begin_request("GET", "", is_trusted=False)
        assert (await client.get("/readyz")).status_code == 200
        tracing.end_request(before, "GET", "/customer/list-sessions", 200)
    only(collector.spans)


async def test_a_receiver_that_is_away_changes_no_answer_delays_no_end_and_is_told_once(
    postgres: Postgres, sql: Connection
) -> None:
    port = free_port()
    customer = await make_customer(sql, make_settings(postgres.url()))
    session = await make_session(sql, make_settings(postgres.url()))
    traced = {"trace_endpoint": f"http://ada:hidden-word@127.0.0.1:{port}", "trace_sample_ratio": 1}
    async with api_process(postgres.url(), **traced) as api:
        async with httpx.AsyncClient(base_url=api.url) as client:
            assert (await book(client, customer, session.seat_ids[0])).status_code == 201

            async def told() -> bool:
                assert (await client.get("/customer/list-sessions")).status_code == 200
                return "traces can't be sent" in api.output()

            await until(told, "a line that says so")
            for _ in range(50):
                assert (await client.get("/customer/list-sessions")).status_code == 200
        began = time.monotonic()
        assert await api.stop() == 0
        assert time.monotonic() - began < 20
        output = api.output()
    assert output.count("traces can't be sent") == 1
    assert "hidden-word" not in output


async def test_a_receiver_that_never_answers_holds_up_the_end_for_a_bounded_time_only(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.observability.spans.CLOSE_SECONDS_MAX", 0.2)
    monkeypatch.setattr("service.observability.spans.SEND_SECONDS_MAX", 30)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = SecretStr(f"http://127.0.0.1:{silent.getsockname()[1]}")
        async with serving(settings.model_copy(update={"trace_endpoint": endpoint})) as client:
            assert (await client.get("/customer/list-sessions")).status_code == 200
            began = time.monotonic()
        assert time.monotonic() - began < 20


def test_without_an_endpoint_the_exporter_is_not_even_imported() -> None:
    # The SDK is: redis looks for it by itself.
    program = (
        "import sys, service.app, expirer.__main__;"
        "lazy = {'requests', 'google.protobuf', 'opentelemetry.exporter', 'service.observability.spans'};"
        "print(lazy & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
