"""Faults that make each alert fire on a running system. None provokes an alert of a later one."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import RabbitMQ, Redis
from service.database import Connection
from tests.monitoring.prometheus import until_ended, until_firing
from tests.monitoring.system import System
from tests.stage.broker import send_letter
from tests.stage.factories import book, pay, release
from tests.stage.forcing import locked
from tests.stage.waiting import until, until_lock_waits

LOCK_SECONDS, SELL_SECONDS = 16, 20
PROVOKE_SECONDS_MAX = 40
WHOLE = "max (rowlock_audit_last_round_timestamp_seconds) > 0 and max (rowlock_audit_unlooked) == 0"
FORGOTTEN = 4
"""One in this number of customers abandons the hold."""


@dataclass(frozen=True, slots=True)
class Stage:
    """The system and its servers."""

    system: System
    postgres: Postgres
    sql: Connection
    redis: Redis | Container
    rabbitmq: RabbitMQ | Container

    async def until_firing(self, *names: str) -> None:
        """Fails with the alerts that never fire."""
        await until_firing(self.system.prometheus, *names, seconds_max=PROVOKE_SECONDS_MAX)

    async def until_ended(self, name: str) -> None:
        """Fails if the alert does not end."""
        await until_ended(self.system.prometheus, name, seconds_max=PROVOKE_SECONDS_MAX)

    async def buy(self, seat_id: int) -> None:
        """The first customer buys a seat without competition."""
        held = await book(self.system.api, self.system.customers[0], seat_id)
        paid = await pay(self.system.api, self.system.customers[0], held.json()["reservationId"])
        assert paid.is_success, paid.text

    async def hold_each(self) -> list[UUID]:
        """Holds a seat for every customer in turn. Returns the reservations."""
        replies = [
            await book(self.system.api, customer, seat_id)
            for customer, seat_id in zip(self.system.customers, self.system.seat_ids[50:], strict=False)
        ]
        return [UUID(reply.json()["reservationId"]) for reply in replies]


async def sell_calmly(stage: Stage) -> None:
    """A sale without faults: abandoned holds end on time."""
    held = await stage.hold_each()
    for n, (customer, id_) in enumerate(zip(stage.system.customers, held, strict=True)):
        if n % FORGOTTEN:
            assert (await release(stage.system.api, customer, str(id_))).is_success

    async def all_ended() -> bool:
        return not await stage.sql.fetchval("select count(*) from reservations where state = 'HELD'")

    await until(all_ended, "the end of what was forgotten")


async def keep_holds(stage: Stage) -> None:
    """Another session locks holds beyond their deadline, so they end late."""
    held = await stage.hold_each()
    async with locked(stage.postgres, "reservations", *held):
        await stage.until_firing("RowlockOverdueHold", "RowlockOldWriteTransaction")


async def keep_seats(stage: Stage) -> None:
    """Another session has written, and keeps seats locked that customers want."""
    seat_ids = stage.system.seat_ids
    async with locked(stage.postgres, "seats", *seat_ids[:16]) as stranger:
        await stranger.execute("update seats set version = version where id = $1", seat_ids[0])
        refused = asyncio.create_task(stage.system.storm(LOCK_SECONDS))
        await stage.until_firing(*PROVOCATIONS[keep_seats])
        await refused


async def cause_deadlock(stage: Stage) -> None:
    """Another session locks in a different order. Its longer deadlock_timeout makes PostgreSQL cancel the service's."""
    customer, seat = stage.system.customers[0], stage.system.seat_ids[41]
    async with locked(stage.postgres, "seats", seat) as stranger:
        await stranger.execute("set deadlock_timeout = '20 s'")
        asked = asyncio.create_task(book(stage.system.api, customer, seat))
        await until_lock_waits(stage.sql)
        await stranger.execute("select from accounts where id = $1 for no key update", customer.id)
        await stranger.execute("rollback")
        await asked


async def spoil(stage: Stage) -> None:
    """Damages the data: a seat with the wrong owner, and an unknown message."""
    await stage.sql.execute(
        "update seats set state = 'SOLD', reservation_id = (select id from reservations limit 1) where id = $1",
        stage.system.seat_ids[-1],
    )
    send_letter(stage.rabbitmq.url, b"not a hint")


async def kill_stores(stage: Stage) -> None:
    """Kills RabbitMQ and Redis while customers buy."""
    stage.rabbitmq.kill()
    stage.redis.kill()
    selling = asyncio.create_task(stage.system.storm(SELL_SECONDS))
    await stage.until_firing("RowlockRelayLag", "RowlockCacheBehind")
    await selling


async def blind_audit(stage: Stage) -> None:
    """Stops Redis, so that the audit can't check its maps in several rounds."""

    async def is_whole() -> bool:
        return bool(await stage.system.prometheus.series(WHOLE))

    await until(is_whole, "a round that could look at everything")
    stage.redis.kill()
    await stage.until_firing("RowlockAuditIncomplete")
    stage.redis.ensure_up()
    await stage.until_ended("RowlockAuditIncomplete")


async def lock_out_api(stage: Stage) -> None:
    """PostgreSQL rejects the API's logins. Only probes send requests, as behind a proxy."""
    try:
        await stage.sql.execute(f"alter role {stage.system.role} nologin")
        await stage.sql.fetch(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = $1", stage.system.role
        )
        await stage.until_firing("RowlockApiNotServing")
    finally:
        await stage.sql.execute(f"alter role {stage.system.role} login")
    await stage.until_ended("RowlockApiNotServing")


async def pause_api(stage: Stage) -> None:
    """The API answers neither clients nor Prometheus. The expirers continue."""
    stage.system.server.pause()
    try:
        await stage.until_firing("RowlockApiNotServing")
    finally:
        stage.system.server.resume()
    await stage.until_ended("RowlockApiNotServing")


async def stall_api(stage: Stage) -> None:
    """The API's event loop is blocked: no answer to `/readyz`, but metrics are exported."""
    async with asyncio.TaskGroup() as both:
        both.create_task(stage.system.api.get("/stand-still"))
        both.create_task(stage.until_firing("RowlockApiNotServing"))
    await stage.until_ended("RowlockApiNotServing")


async def kill_expirers(stage: Stage) -> None:
    """Kills all expirers."""
    for expirer in stage.system.expirers:
        expirer.kill_now()


async def kill_api(stage: Stage) -> None:
    """Kills the API after the expirers, so that no process is left."""
    stage.system.server.kill_now()


Provocations = dict[Callable[[Stage], Coroutine[Any, Any, None]], tuple[str, ...]]
PROVOCATIONS: Provocations = {
    keep_holds: (
        "RowlockOverdueHold",
        "RowlockOldWriteTransaction",
        "RowlockExpiryBurnsFast",
        "RowlockExpiryBurnsSlowly",
    ),
    keep_seats: (
        "RowlockLockWaits",
        "RowlockAvailabilityBurnsFast",
        "RowlockAvailabilityBurnsSlowly",
        "RowlockLatencyBurnsFast",
        "RowlockLatencyBurnsSlowly",
    ),
    cause_deadlock: ("RowlockDeadlocks",),
    spoil: ("RowlockAuditFailed", "RowlockParkedMessages"),
    kill_stores: ("RowlockRelayLag", "RowlockCacheBehind"),
    lock_out_api: ("RowlockApiNotServing",),
    pause_api: ("RowlockApiNotServing",),
    stall_api: ("RowlockApiNotServing",),
    kill_expirers: ("RowlockExpirerNotProgressing", "RowlockAuditStale"),
    kill_api: ("RowlockApiNotServing",),
}
"""Faults in their order, with the alerts that each provokes."""
OF_AN_HOUR: Provocations = {blind_audit: ("RowlockAuditIncomplete",)}
"""Faults for alerts that wait an hour, with a larger factor."""
