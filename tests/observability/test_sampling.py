"""Which requests are traced, and that the others cost nothing."""

import time
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import Postgres
from expirer.loops import sweep
from service.database import Connection
from service.observability import sampling, tracing
from service.settings import Settings
from tests.conftest import serving
from tests.stage.collector import Collector, Received
from tests.stage.factories import book, make_customer, make_overdue, make_session, make_settings

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


async def test_an_unsampled_request_makes_no_span_and_stores_nothing(
    engine: AsyncEngine, sql: Connection, settings: Settings, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry.sdk.trace import Tracer  # noqa: PLC0415 - only this test needs it

    made: list[str] = []
    start_span = Tracer.start_span

    def note_span(tracer: Tracer, name: str, *arguments: Any, **options: Any) -> Any:
        made.append(name)
        return start_span(tracer, name, *arguments, **options)

    monkeypatch.setattr(Tracer, "start_span", note_span)
    customer = await make_customer(sql, settings)
    session = await make_session(sql, settings)
    async with serving(settings.model_copy(update={"trace_sample_ratio": 0})) as client:
        assert (await book(client, customer, session.seat_ids[0])).status_code == 201
        await make_overdue(sql, *[row["id"] for row in await sql.fetch("select id from reservations")])
        await sweep.step(engine, settings)
        assert made == []
    async with serving(settings) as client:
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
async def test_only_a_trusted_proxy_decides_what_is_recorded(  # noqa: PLR0913
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
async def test_an_invalid_parent_starts_a_new_trace(settings: Settings, collector: Collector, given: str) -> None:
    async with serving(settings) as client:
        await client.get("/customer/list-sessions", headers=[(b"traceparent", given.encode())])
    span = only(collector.named("GET /customer/list-sessions"))
    assert (span.trace != TRACE, span.parent) == (True, "")


async def test_health_checks_are_not_traced(settings: Settings, collector: Collector) -> None:
    async with serving(settings) as client:
        for path in ("/livez", "/readyz", "/customer/list-sessions"):
            assert (await client.get(path)).status_code == 200
    only([span for span in collector.spans if span.attributes.get("http.request.method")])


async def test_a_health_check_is_not_part_of_the_request_before_it(settings: Settings, collector: Collector) -> None:
    async with serving(settings) as client:
        before = sampling.begin_request("GET", "", is_trusted=False)
        assert (await client.get("/readyz")).status_code == 200
        sampling.end_request(before, "GET", "/customer/list-sessions", 200)
    only(collector.spans)


def count_forced(requests: int) -> int:
    """How many of these requests, which a trusted proxy wants traced, are traced."""
    begun = [sampling.begin_request("GET", SAMPLED["traceparent"], is_trusted=True) for _ in range(requests)]
    tracing.current.set(None)
    return sum(request.span is not None for request in begun)


@pytest.mark.parametrize(("ratio", "traced"), [(0, sampling.FORCED_PER_SECOND_MAX), (1, 60)])
async def test_a_proxy_can_force_only_so_many_traces_a_second(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, ratio: float, traced: int
) -> None:
    async with tracing.exported(settings.model_copy(update={"trace_sample_ratio": ratio}), "test"):
        for second in (1e9 + ratio * 10, 1e9 + ratio * 10 + 1):
            with monkeypatch.context() as patched:
                patched.setattr(time, "monotonic", lambda now=second: now)
                assert count_forced(60) == traced
