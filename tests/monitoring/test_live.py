"""A real Prometheus over a running system: every expression gives data, and every alert fires when it is provoked."""

import asyncio

import asyncpg
import pytest

from dev.containers import Container
from dev.monitoring.__main__ import DASHBOARDS
from dev.monitoring.alerts import ALERTS
from dev.postgres import Postgres
from dev.servers import RabbitMQ, Redis
from service.database import Connection
from tests.broker import send_letter
from tests.conftest import EMPTY_TABLES
from tests.factories import book
from tests.forcing import locked
from tests.monitoring.prometheus import until_firing
from tests.monitoring.selectors import selectors
from tests.monitoring.system import System, watched
from tests.waiting import until, until_lock_waits

STORM_SECONDS = 25
PROVOKE_SECONDS_MAX = 40
CALM_SECONDS_MAX = 60

Broker = RabbitMQ | Container
pytestmark = pytest.mark.timeout(280)

NOT_HERE = {"kube_job_failed"}
"""Of kube-state-metrics, which is in clusters only."""


async def test_under_a_contended_storm_every_expression_gives_data(
    postgres: Postgres, sql: Connection, redis: Redis | Container, rabbitmq: Broker
) -> None:
    async with watched(postgres, sql, redis, rabbitmq) as (system, session_id):
        await asyncio.gather(system.storm(STORM_SECONDS), system.browse(session_id, STORM_SECONDS))
        panels = [expression for described in DASHBOARDS for expression in described.expressions()]
        parts = {part for alert in ALERTS for part in selectors(alert.expression)}
        asked = [expression.replace("$__rate_interval", "20s") for expression in panels] + sorted(parts)
        empty = [
            expression
            for expression in asked
            if expression.partition("{")[0] not in NOT_HERE and not await system.prometheus.series(expression)
        ]
        assert empty == []


async def _shop_on(system: System) -> None:
    while True:
        await system.storm(5)


async def _calm(system: System) -> None:
    async def is_calm() -> bool:
        return not (await system.prometheus.firing() - {"RowlockAuditStale"})

    await until(is_calm, "a system at which nothing is wrong", CALM_SECONDS_MAX)
