"""The metrics that both processes report from their start, with bounded labels."""

from math import isnan

import httpx
from prometheus_client import REGISTRY, Metric

from dev.containers import Container
from dev.postgres import Postgres
from dev.processes import free_port
from dev.servers import Redis
from service import VERSION
from service.app import create_app
from service.database import Connection
from service.migrations import NEWEST
from service.observability.metrics.catalogue import GROUPS
from service.observability.metrics.families import OTHER, Group
from service.observability.metrics.families import Process as ProcessName
from service.settings import Settings
from tests.stage.factories import book, make_customer, make_overdue, make_session, make_settings, pay
from tests.stage.metering import scrape
from tests.stage.processes import api_process, expirer_process
from tests.stage.relaying import Broker
from tests.stage.waiting import until

ROUTES = {*create_app(make_settings("postgresql://a@127.0.0.1/a")).openapi()["paths"], "/api-docs", "/openapi.json"}
KNOWN = ROUTES | {"EUR", VERSION, NEWEST}
"""Values of labels that something other than the catalogue bounds."""


def faults(shown: dict[str, Metric], process: ProcessName) -> list[str]:
    """Undeclared names, and undeclared values of labels."""
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
    """The metrics that a process reports from its start: counters and histograms with known labels."""
    return {
        family.name
        for group in GROUPS
        if group.process in (process, "both")
        for family in group.families
        if family.make.__name__ != "Gauge" and not any(isinstance(bound, str) for bound in family.labels.values())
    }


async def test_both_processes_report_declared_metrics_and_labels_only(
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


async def test_failures_of_every_route_start_at_zero(postgres: Postgres, settings: Settings) -> None:
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


async def test_waiting_sign_ins_start_at_zero(postgres: Postgres) -> None:
    port = free_port()
    async with api_process(postgres.url(), metrics_port=port):
        shown = await scrape(port)
    for name in ("rowlock_sign_ins_delayed", "rowlock_password_checks_waiting"):
        assert [sample.value for sample in shown[name].samples] == [0]


def test_undeclared_values_share_one_series() -> None:
    family = Group("tests", "API").counter("tests_words_total", "words", "Said by clients.", {"word": ("known",)})
    for n in range(100):
        family.of(f"word {n}").inc()
    family.of("known").inc()
    assert set(family.children) == {("known",), ("other",)}
    assert REGISTRY.get_sample_value("tests_words_total", {"word": "other"}) == 100
