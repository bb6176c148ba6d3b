"""A real Prometheus over a running system: every expression gives data, and every alert fires when it is provoked."""

import asyncio
import signal

import pytest

from dev.containers import Container
from dev.monitoring.__main__ import DASHBOARDS
from dev.monitoring.alerts import ALERTS
from dev.postgres import Postgres
from dev.servers import RabbitMQ, Redis
from service.database import Connection
from tests.broker import send_letter
from tests.conftest import EMPTY_TABLES
from tests.factories import book, make_customers, make_settings
from tests.forcing import locked
from tests.monitoring.prometheus import until_firing
from tests.monitoring.selectors import selectors
from tests.monitoring.system import HOLD_SECONDS, System, watched
from tests.waiting import until_lock_waits

STORM_SECONDS = 20
REFUSED_SECONDS = 4
QUIET_SECONDS, LOCK_SECONDS = 3, 16
"""So few are answered well before that many of all have waited for locks, however fast the machine is."""
PROVOKE_SECONDS_MAX = 40
LOCKS = (
    "RowlockLockWaits",
    "RowlockOldWriteTransaction",
    "RowlockAvailabilityBurnsFast",
    "RowlockAvailabilityBurnsSlowly",
    "RowlockLatencyBurnsFast",
    "RowlockLatencyBurnsSlowly",
)
EXPIRY = ("RowlockOverdueHold", "RowlockExpiryBurnsFast", "RowlockExpiryBurnsSlowly")
EXPIRERS = ("RowlockExpirerNotProgressing", "RowlockAuditStale")
SYMPTOMS = {alert.name for alert in ALERTS if "Burns" not in alert.name}

Broker = RabbitMQ | Container
pytestmark = pytest.mark.timeout(280)

NOT_HERE = {"kube_job_failed"}
"""Of kube-state-metrics, which is in clusters only."""


async def test_under_a_contended_storm_every_expression_gives_data(
    postgres: Postgres, sql: Connection, redis: Redis | Container, rabbitmq: Broker
) -> None:
    async with watched(postgres, sql, redis, rabbitmq) as (system, session_id):
        await asyncio.gather(system.storm(STORM_SECONDS), system.browse(session_id, STORM_SECONDS))
        # Locks that do not come in time: some are refused by our fault.
        async with locked(postgres, "seats", *system.seat_ids[:16]):
            await system.storm(REFUSED_SECONDS)
        panels = [expression for described in DASHBOARDS for expression in described.expressions()]
        parts = {part for alert in ALERTS for part in selectors(alert.expression)}
        asked = [expression.replace("$__rate_interval", "20s") for expression in panels] + sorted(parts)
        empty = [
            expression
            for expression in asked
            if expression.partition("{")[0] not in NOT_HERE and not await system.prometheus.series(expression)
        ]
        assert empty == []


async def test_every_alert_fires_when_it_is_provoked(
    postgres: Postgres, sql: Connection, redis: Redis | Container, rabbitmq: Broker
) -> None:
    async with watched(postgres, sql, redis, rabbitmq) as (system, _):
        prometheus = system.prometheus
        await system.storm(QUIET_SECONDS)
        assert await prometheus.firing() & SYMPTOMS == set()

        # Somebody keeps the locks of seats that customers want, and has written something.
        held = await book(system.api, system.customers[0], system.seat_ids[40])
        assert held.is_success
        async with locked(postgres, "seats", *system.seat_ids[:16]) as stranger:
            await stranger.execute("update seats set version = version where id = $1", system.seat_ids[0])
            refused = asyncio.create_task(system.storm(LOCK_SECONDS))
            await until_firing(prometheus, *LOCKS, seconds_max=PROVOKE_SECONDS_MAX)
            await refused
        await _cause_deadlock(postgres, sql, system)
        await until_firing(prometheus, "RowlockDeadlocks", seconds_max=PROVOKE_SECONDS_MAX)

        # Behind the service's back: an owner who is none, and a message that is none of ours.
        await sql.execute(
            "update seats set state = 'SOLD', reservation_id = (select id from reservations limit 1) where id = $1",
            system.seat_ids[-1],
        )
        send_letter(rabbitmq.url, b"not a hint")
        await until_firing(prometheus, "RowlockAuditFailed", "RowlockParkedMessages", seconds_max=PROVOKE_SECONDS_MAX)

        # The stores behind and before us.
        rabbitmq.kill()
        redis.kill()
        selling = asyncio.create_task(system.storm(STORM_SECONDS))
        await until_firing(prometheus, "RowlockRelayLag", "RowlockCacheBehind", seconds_max=PROVOKE_SECONDS_MAX)
        await selling

        # The holds that nobody ends meanwhile are late, which the next expirer finds out.
        (overdue,) = await make_customers(sql, make_settings(postgres.url()), 1)
        assert (await book(system.api, overdue, *system.seat_ids[50:58])).is_success
        for expirer in system.expirers:
            expirer.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(HOLD_SECONDS + 3)
        for expirer in system.expirers:
            expirer.process.send_signal(signal.SIGCONT)
        await until_firing(prometheus, *EXPIRY, seconds_max=PROVOKE_SECONDS_MAX)
        for expirer in system.expirers:
            expirer.kill_now()
        await until_firing(prometheus, *EXPIRERS, seconds_max=PROVOKE_SECONDS_MAX)
    await sql.execute(EMPTY_TABLES)


async def _cause_deadlock(postgres: Postgres, sql: Connection, system: System) -> None:
    customer, seat = system.customers[0], system.seat_ids[41]
    async with locked(postgres, "seats", seat) as stranger:
        # The other one waits longer before it looks for a deadlock, so that it is the service's that is ended.
        await stranger.execute("set deadlock_timeout = '20 s'")
        asked = asyncio.create_task(book(system.api, customer, seat))
        await until_lock_waits(sql)
        await stranger.execute("select from accounts where id = $1 for no key update", customer.id)
        await stranger.execute("rollback")
        await asked
