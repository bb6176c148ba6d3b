"""The port for Prometheus: what processes show on it, that two workers add up, and that no label is without bounds."""

import asyncio
import os
import signal
import socket
import tempfile
import threading
import time
from math import isnan
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.mmap_dict import MmapedDict
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.containers import Container
from dev.postgres import Postgres, free_port
from dev.servers import Redis
from service import VERSION
from service.app import create_app
from service.database import Connection, snapshot
from service.migrations import NEWEST
from service.observability.metrics import exposition
from service.observability.metrics.catalogue import GROUPS
from service.observability.metrics.families import OTHER, Group
from service.observability.metrics.families import Process as ProcessName
from service.settings import Settings
from tests.conftest import serving
from tests.stage.factories import book, make_customer, make_overdue, make_session, make_settings, pay
from tests.stage.metering import gauge, moved, scrape
from tests.stage.processes import Process, api_process, expirer_process
from tests.stage.relaying import Broker
from tests.stage.waiting import until

ROUTES = {*create_app(make_settings("postgresql://a@127.0.0.1/a")).openapi()["paths"], "/api-docs", "/openapi.json"}
KNOWN = ROUTES | {"EUR", VERSION, NEWEST}
"""The values of labels that are bounded by something else than the catalogue."""
STUCK_SECONDS = 0.3


def faults(shown: dict[str, Metric], process: ProcessName) -> list[str]:
    """Names that nobody has declared, and values of labels that are none of those declared."""
    declared = {
        family.name: family for group in GROUPS if group.process in (process, "both") for family in group.families
    }
    found = [name for name in shown if name not in declared]
    for name in shown.keys() & declared.keys():
        for sample in shown[name].samples:
            for label, value in sample.labels.items():
                allowed = declared[name].labels.get(label, ())
                is_known = value in (allowed if isinstance(allowed, tuple) else KNOWN)
                if label != "le" and not is_known and value != OTHER:
                    found.append(f"{name} {label} {value}")
    return found


def always_shown(process: ProcessName) -> set[str]:
    """What a process shows from its start on: what it counts, where the labels' values are all known."""
    return {
        family.name
        for group in GROUPS
        if group.process in (process, "both")
        for family in group.families
        if family.make.__name__ != "Gauge" and not any(isinstance(bound, str) for bound in family.labels.values())
    }


async def test_both_processes_show_what_they_count_and_nothing_with_labels_of_any_number(
    postgres: Postgres, sql: Connection, settings: Settings, redis: Redis | Container, rabbitmq: Broker
) -> None:
    url, ports = postgres.url(), (free_port(), free_port())
    others = {"redis_url": redis.url, "broker_url": rabbitmq.url, "audit_interval_seconds": 1}
    customer, session = await make_customer(sql, settings), await make_session(sql, settings)
    async with (
        api_process(url, metrics_port=ports[0], **others) as api,
        expirer_process(url, expirer_metrics_port=ports[1], **others),
        httpx.AsyncClient(base_url=api.url) as client,
    ):
        paid, forgotten = [(await book(client, customer, seat)).json() for seat in session.seat_ids[:2]]
        await pay(client, customer, paid["reservationId"])
        await make_overdue(sql, forgotten["reservationId"])
        for path in (f"/customer/session/{session.id}", "/customer/list-sessions", "/no/such/route", "/api-docs"):
            await client.get(path)

        async def have_come() -> bool:
            shown = await scrape(ports[1])
            is_there = {
                "rowlock_audit_violations",
                "rowlock_log_lag_seconds",
                "rowlock_broker_messages",
            } <= shown.keys()
            if not is_there or any(isnan(sample.value) for sample in shown["rowlock_audit_violations"].samples):
                return False
            return sum(sample.value for sample in shown["rowlock_holds_expired_total"].samples) == 1

        await until(have_come, "the audit's verdict, the observer's figures and the end of the hold")
        shown = await scrape(ports[0]), await scrape(ports[1])
    assert faults(shown[0], "API") == []
    assert faults(shown[1], "expirer") == []
    assert always_shown("API") <= shown[0].keys()
    assert always_shown("expirer") <= shown[1].keys()
    assert [sample.labels for sample in shown[0]["rowlock_build_info"].samples] == [
        {"version": VERSION, "schema": NEWEST}
    ]
    assert {sample.value for sample in shown[1]["rowlock_audit_violations"].samples} == {0}
    assert [sample.value for sample in shown[1]["rowlock_audit_interval_seconds"].samples] == [1]


async def test_failures_of_every_route_are_shown_before_the_first_one(postgres: Postgres, settings: Settings) -> None:
    port = free_port()
    async with api_process(postgres.url(), metrics_port=port):
        shown = (await scrape(port))["rowlock_http_request_duration_seconds"].samples
    still = [sample.labels for sample in shown if sample.name.endswith("_count") and not sample.value]
    assert {(labels["method"], labels["route"], labels["outcome"]) for labels in still} == {
        (method.upper(), route, outcome)
        for route, operations in create_app(settings).openapi()["paths"].items()
        for method in operations
        for outcome in ("unavailable", "failed")
    }


async def test_that_no_sign_in_waits_is_shown_before_the_first_one(postgres: Postgres) -> None:
    port = free_port()
    async with api_process(postgres.url(), metrics_port=port):
        shown = await scrape(port)
    for name in ("rowlock_sign_ins_delayed", "rowlock_password_checks_waiting"):
        assert [sample.value for sample in shown[name].samples] == [0]


@pytest.mark.usefixtures("sql")
async def test_two_workers_add_up_on_one_port(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--workers=2")
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    port = free_port()
    async with api_process(postgres.url(), metrics_port=port) as api:

        async def ask() -> dict[str, int]:
            async with httpx.AsyncClient(base_url=api.url) as client:
                await client.get("/livez")
            return served_by(tmp_path)

        asked, served = 1, await ask()
        while len(served) < 2:
            served, asked = await ask(), asked + 1
            assert asked < 500, "a second worker has never served"
        shown = await scrape(port)
    (livez,) = [
        sample.value
        for sample in shown["rowlock_http_request_duration_seconds"].samples
        if sample.name.endswith("_count") and sample.labels["route"] == "/livez" and sample.value
    ]
    assert livez == asked == sum(served.values())
    assert served_by(tmp_path) == {}, "nothing is left behind"


def served_by(folder: Path) -> dict[str, int]:
    """How many `/livez` each worker has answered, where it has answered any."""
    counts: dict[str, int] = {}
    for path in folder.glob("rowlock-metrics-*/histogram_*.db"):
        for key, value, *_ in MmapedDict.read_all_values_from_file(str(path)):  # type: ignore[no-untyped-call]
            if "/livez" in key and "_sum" not in key and "_bucket" in key and "+Inf" not in key and value:
                counts[path.name] = counts.get(path.name, 0) + round(value)
    return counts


def worker_of(api: Process) -> int:
    """The process that serves."""
    (worker,) = Path(f"/proc/{api.process.pid}/task/{api.process.pid}/children").read_text().split()
    return int(worker)


@pytest.mark.usefixtures("sql")
async def test_a_worker_that_takes_anothers_place_has_the_port(postgres: Postgres) -> None:
    port = free_port()
    async with api_process(postgres.url(), metrics_port=port) as api:
        assert "rowlock_build_info" in await scrape(port)
        os.kill(worker_of(api), signal.SIGKILL)

        async def answers() -> bool:
            try:
                return "rowlock_build_info" in await scrape(port)
            except httpx.TransportError:
                return False

        await until(answers, "the next worker's port")


async def test_a_port_that_somebody_else_has_stops_no_request_and_is_taken_when_it_is_free(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposition, "PORT_RETRY_SECONDS", 0.01)
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))  # noqa: S104 - as the service does
        taken.listen()
        port = taken.getsockname()[1]
        async with serving(settings.model_copy(update={"metrics_port": port})) as client:
            assert (await client.get("/readyz")).status_code == 200
            taken.close()

            async def answers() -> bool:
                try:
                    return "rowlock_build_info" in await scrape(port)
                except httpx.TransportError:
                    return False

            await until(answers, "the port")


async def test_the_port_is_given_back_while_others_go_on(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    end, went_on = exposition._end, threading.Event()
    waited: list[bool] = []

    def end_after_others(*arguments: Any) -> None:
        asyncio.run_coroutine_threadsafe(go_on(), loop)
        waited.append(went_on.wait(30))
        end(*arguments)

    async def go_on() -> None:
        went_on.set()

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(exposition, "_end", end_after_others)
    port = free_port()
    async with exposition.exposed("API", VERSION, "127.0.0.1", port, engine):

        async def is_taken() -> bool:
            return not is_free(port)

        await until(is_taken, "the port")
    assert (waited, is_free(port)) == ([True], True)


def is_free(port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as made:
        return made.connect_ex(("127.0.0.1", port)) != 0


async def test_a_stuck_event_loop_and_a_used_pool_are_seen_and_the_port_answers_meanwhile(
    engine: AsyncEngine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposition, "SAMPLE_SECONDS", 0.01)
    port, began = free_port(), time.monotonic()
    async with exposition.exposed("API", VERSION, "127.0.0.1", port, engine):
        async with snapshot(engine):

            async def is_seen() -> bool:
                return (gauge("pool_connections_used"), gauge("pool_size")) == (1, settings.pool_size)

            await until(is_seen, "the connection in use")
        before = gauge("event_loop_lag_seconds_sum")

        async def lag_is_seen() -> bool:
            return gauge("event_loop_lag_seconds_sum") - before > 0.25

        with moved() as grown:
            # The loop stands still until the answer is here, and after it for a while.
            assert "rowlock_" in httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text  # noqa: ASYNC210
            time.sleep(STUCK_SECONDS)  # noqa: ASYNC251 - it is stuck
            await until(lag_is_seen, "the time that the loop stood still")
        assert grown["event_loop_lag_seconds_count"] >= 1
        assert gauge("event_loop_lag_seconds_sum") - before < time.monotonic() - began


def test_what_is_not_declared_fills_no_memory() -> None:
    family = Group("tests", "API").counter("tests_words_total", "words", "Said by clients.", {"word": ("known",)})
    for n in range(100):
        family.of(f"word {n}").inc()
    family.of("known").inc()
    assert set(family.children) == {("known",), ("other",)}
    assert family.of("other")._value.get() == 100
