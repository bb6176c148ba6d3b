"""A real Prometheus on a running system: every expression has data, and every alert fires when provoked."""

import asyncio
import math
from itertools import chain

import pytest

from dev.containers import Container
from dev.monitoring.__main__ import DASHBOARDS
from dev.monitoring.alerts import ALERTS
from dev.monitoring.locks import LOCKS
from dev.postgres import Postgres
from dev.servers import RabbitMQ, Redis
from service.database import Connection
from tests.conftest import EMPTY_TABLES
from tests.monitoring.prometheus import Prometheus, as_asked
from tests.monitoring.provoking import OF_AN_HOUR, PROVOCATIONS, Provocations, Stage, cause_deadlock, sell_calmly
from tests.monitoring.selectors import selectors
from tests.monitoring.system import watched
from tests.stage.forcing import locked

STORM_SECONDS = 20
REFUSED_SECONDS = 4
RATE_SECONDS = 30
"""A window that contains both."""
HOUR_FACTOR = 360
"""Shortens an hour to ten seconds."""
NAMES = {alert.name for alert in ALERTS}

Broker = RabbitMQ | Container
pytestmark = pytest.mark.timeout(420)

NOT_HERE = {"kube_job_failed"}
"""Metrics of kube-state-metrics, which runs only in clusters."""
NOT_PROVOKED = {"RowlockMigrationFailed"}
"""Alerts on those metrics."""
MOVED = {
    "Wait for row locks (95 %)": {"customers", "reservations", "seats"},
    "Seconds waited per second": {"customers", "reservations", "seats"},
    "Refused, by reason": {"taken", "locked"},
    "Retries": {"collision"},
    "Errors from PostgreSQL": {"deadlock", "lock_timeout"},
    "Holds per batch": {"inbox", "sweep"},
    "Skipped because locked": {"inbox", "sweep"},
    "Ended by": {"inbox", "sweep"},
}
"""Panels that the storm must move, with the labels of their curves."""


async def test_a_contended_storm_moves_every_expression(
    postgres: Postgres, sql: Connection, redis: Redis | Container, rabbitmq: Broker
) -> None:
    async with watched(postgres, sql, redis, rabbitmq) as (system, session_id):
        stage = Stage(system, postgres, sql, redis, rabbitmq)
        # Few customers pay in a storm: the curve needs one payment before it and one at its end.
        await stage.buy(system.seat_ids[48])
        await asyncio.gather(system.storm(STORM_SECONDS), system.browse(session_id, STORM_SECONDS))
        # Causes retries and lock timeouts, so that some requests fail with 503.
        await cause_deadlock(stage)
        await stage.buy(system.seat_ids[49])
        held = await stage.hold_each()
        # Longer than the sweep's pause, so that the sweep must skip these holds.
        async with locked(postgres, "reservations", *held), locked(postgres, "seats", *system.seat_ids[:16]):
            await system.storm(REFUSED_SECONDS)
        assert await _moved(system.prometheus) == MOVED
        assert await _empty(system.prometheus) == []


async def _moved(prometheus: Prometheus) -> dict[str, set[str]]:
    """The curves of MOVED with a value above 0."""
    panels = {panel.title: panel for row in LOCKS.rows for panel in row.panels}
    found = {}
    for title, labels in MOVED.items():
        (expression,) = panels[title].lines.values()
        series = await prometheus.series(as_asked(expression, f"{RATE_SECONDS}s"))
        above = {label for one in series if 0 < float(one["value"][1]) < math.inf for label in one["metric"].values()}
        found[title] = above & labels
    return found


async def _empty(prometheus: Prometheus) -> list[str]:
    """The expressions of dashboards and selectors of alerts without a value."""
    panels = [expression for described in DASHBOARDS for expression in described.expressions()]
    parts = {part for alert in ALERTS for part in selectors(alert.expression)}
    asked = [as_asked(expression, f"{RATE_SECONDS}s") for expression in panels] + sorted(parts)
    return [
        expression
        for expression in asked
        if expression.partition("{")[0] not in NOT_HERE
        and all(math.isnan(float(one["value"][1])) for one in await prometheus.series(expression))
    ]


async def test_every_alert_fires_only_when_provoked(
    postgres: Postgres, sql: Connection, redis: Redis | Container, rabbitmq: Broker
) -> None:
    async with watched(postgres, sql, redis, rabbitmq) as (system, _), system.probed():
        stage = Stage(system, postgres, sql, redis, rabbitmq)
        await sell_calmly(stage)
        assert await system.prometheus.firing() == set()
        await _provoke(stage, PROVOCATIONS)
    await sql.execute(EMPTY_TABLES)


async def test_an_alert_that_waits_an_hour_fires_only_when_provoked(
    postgres: Postgres, sql: Connection, redis: Redis | Container, rabbitmq: Broker
) -> None:
    async with watched(postgres, sql, redis, rabbitmq, HOUR_FACTOR) as (system, _):
        await _provoke(Stage(system, postgres, sql, redis, rabbitmq), OF_AN_HOUR)


async def _provoke(stage: Stage, provocations: Provocations) -> None:
    for provoke, names in provocations.items():
        assert await stage.system.prometheus.firing() & set(names) == set()
        async with asyncio.TaskGroup() as both:
            both.create_task(provoke(stage))
            both.create_task(stage.until_firing(*names))


def test_every_alert_is_provoked() -> None:
    assert set(chain.from_iterable({**PROVOCATIONS, **OF_AN_HOUR}.values())) == NAMES - NOT_PROVOKED
