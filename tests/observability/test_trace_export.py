"""Sending traces: the receiver may be away, and everything is bounded."""

import socket
import subprocess
import sys
import time

import httpx

from dev.postgres import Postgres
from dev.processes import free_port
from service.database import Connection
from service.observability.spans import LINKS_MAX, Spans
from service.settings import Settings
from tests.stage.collector import Collector
from tests.stage.factories import book, make_customer, make_session, make_settings
from tests.stage.processes import api_process
from tests.stage.sources import ROOT
from tests.stage.waiting import until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-00"}


TRACEPARENT = f"00-{'0a' * 16}-{'cd' * 8}-01"


async def test_an_absent_receiver_is_logged_once_and_delays_nothing(postgres: Postgres, sql: Connection) -> None:
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


async def test_a_silent_receiver_delays_the_end_only_for_a_while() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        spans = Spans(f"http://127.0.0.1:{silent.getsockname()[1]}", "test", send_seconds_max=30)
        spans.begin("request", "server", None).end()
        began = time.monotonic()
        await spans.close(0.2)
        assert time.monotonic() - began < 20


async def test_spans_beyond_the_queue_are_dropped(collector: Collector) -> None:
    spans = Spans(collector.url, "test", queue_spans_max=20)
    with collector.paused():
        for _ in range(100):
            spans.begin("request", "server", None).end()
    await spans.close(30)
    # One batch on its way, and one queue.
    assert 20 <= len(collector.spans) <= 40


async def test_a_span_keeps_as_many_links_as_the_largest_batch(collector: Collector) -> None:
    batches = (name for name in Settings.model_fields if name.endswith("_batch_max"))
    assert max(most(name) for name in batches) <= LINKS_MAX
    spans = Spans(collector.url, "test")
    span = spans.begin("batch", "internal", None)
    for _ in range(LINKS_MAX + 1):
        spans.link(span, TRACEPARENT)
    span.end()
    await spans.close(30)
    assert [len(received.links) for received in collector.spans] == [LINKS_MAX]


def most(name: str) -> int:
    """The largest value that the setting may have."""
    bounds = [bound.le for bound in Settings.model_fields[name].metadata if hasattr(bound, "le")]
    assert bounds, name
    return int(min(bounds))


def test_without_an_endpoint_the_exporter_is_not_imported() -> None:
    # The SDK is imported, by redis.
    program = (
        "import sys, service.app, expirer.__main__;"
        "lazy = {'requests', 'google.protobuf', 'opentelemetry.exporter', 'service.observability.spans'};"
        "print(lazy & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
