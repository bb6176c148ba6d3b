"""A part fails while customers buy. Nothing is lost, and customers notice only faults of the API or PostgreSQL."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import httpx
import pytest

from tests.cluster.kubernetes import Release, is_ready, until
from tests.cluster.shoppers import Shoppers, shopping, until_sold_again
from tests.cluster.verdict import assert_true, count

AWAY_SECONDS = 60
DUE = 100
EXPIRERS = "app.kubernetes.io/component=expirer"
AT_ONCE = ("--grace-period=0", "--force", "--wait=false")
COUNT_HELD = """
select count(*)
from reservations
where state = 'HELD'
"""
COUNT_OVERDUE_OF = """
select count(*)
from reservations
where state = 'HELD'
and expires_at < clock_timestamp() - interval '5 s'
and id in ({ids})
"""
END_SECONDS_MAX = 10
"""From the first ready expirer to the end of the last overdue hold."""


def kill_api_pod(release: Release) -> None:
    """Kills one of three pods."""
    release.kubectl("delete", "pod", release.pod_names("api")[0], *AT_ONCE)
    release.until_ready("api", 3)


def delete_redis(release: Release) -> None:
    """Kills Redis, which restarts empty."""
    release.kubectl("delete", "pod", "rowlock-redis-0", *AT_ONCE)
    release.until_ready("redis", 1)


def delete_postgresql(release: Release) -> None:
    """Kills PostgreSQL, which restarts with its volume."""
    uid = release.pods("postgresql")[0]["metadata"]["uid"]
    release.kubectl("delete", "pod", "rowlock-postgresql-0", *AT_ONCE)
    until(lambda: [pod["metadata"]["uid"] for pod in release.pods("postgresql")] not in ([], [uid]), "another pod")
    release.until_ready("postgresql", 1)


def take_rabbitmq_away(release: Release) -> None:
    """Stops RabbitMQ for a minute."""
    release.kubectl("scale", "statefulset", "rowlock-rabbitmq", "--replicas=0")
    until(lambda: release.objects("pods", "app.kubernetes.io/component=rabbitmq") == [], "no pod of RabbitMQ")
    time.sleep(AWAY_SECONDS)
    release.kubectl("scale", "statefulset", "rowlock-rabbitmq", "--replicas=1")
    release.until_ready("rabbitmq", 1)


def drain_worker(release: Release) -> None:
    """Drains a node without PostgreSQL, whose volume can't move, and makes it schedulable again."""
    apart = release.pods("postgresql")[0]["spec"]["nodeName"]
    node = next(pod["spec"]["nodeName"] for pod in release.pods("api") if pod["spec"]["nodeName"] != apart)
    try:
        release.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=150s")
        assert node not in {pod["spec"]["nodeName"] for pod in release.pods("api")}
        release.until_ready("api", 3)
    finally:
        release.kubectl("uncordon", node)
    release.until_ready("rabbitmq", 1)
    release.until_ready("redis", 1)


UNNOTICED = (delete_redis, take_rabbitmq_away, drain_worker)
NOTICED = (kill_api_pod, delete_postgresql)


@pytest.mark.parametrize("fault", [*UNNOTICED, *NOTICED], ids=lambda fault: fault.__name__)
async def test_a_fault_loses_nothing_and_the_sale_continues(release: Release, fault: Callable[[Release], None]) -> None:
    async with shopping(release) as shoppers:
        await until_sold_again(shoppers)
        await asyncio.to_thread(fault, release)
        await until_sold_again(shoppers)
    if fault in UNNOTICED:
        assert shoppers.failures == []
    assert release.restarts("api") == 0
    assert_true(release, shoppers)


async def hold_many(shoppers: Shoppers, seat_ids: Sequence[int]) -> list[str]:
    """Makes holds concurrently that no customer ends. Returns their ids."""

    async def one(n: int, seat_id: int) -> str:
        headers = {"Authorization": f"Bearer {shoppers.tokens[n % len(shoppers.tokens)]}"}
        reply = await shoppers.client.post(f"/customer/book/{seat_id}", headers=headers)
        assert reply.status_code == httpx.codes.CREATED, reply.text
        id_ = str(reply.json()["reservationId"])
        shoppers.acknowledged[id_] = "HELD"
        return id_

    return await asyncio.gather(*(one(n, seat_id) for n, seat_id in enumerate(seat_ids)))


async def test_a_returning_expirer_ends_100_overdue_holds(
    release: Release,
) -> None:
    async with shopping(release, aside=DUE) as shoppers:
        async with no_expirers(release):
            held = await hold_many(shoppers, shoppers.aside)
            overdue = COUNT_OVERDUE_OF.format(ids=", ".join(f"'{id_}'" for id_ in held))
            await asyncio.to_thread(until, lambda: count(release, overdue) == DUE, "holds that are overdue", 40)
            await until_sold_again(shoppers)
        await asyncio.to_thread(until, lambda: any(map(is_ready, release.pods("expirer"))), "an expirer", 60)
        await asyncio.to_thread(until, lambda: count(release, overdue) == 0, "their end", END_SECONDS_MAX)
        await asyncio.to_thread(release.until_ready, "expirer", 2)
    assert shoppers.failures == []
    assert release.restarts("api") == 0
    assert_true(release, shoppers)
    until(lambda: count(release, COUNT_HELD) == 0, "the end of every hold")


@asynccontextmanager
async def no_expirers(release: Release) -> AsyncIterator[None]:
    """Kills all expirers and keeps them down during the block."""
    killed = release.pod_names("expirer")
    await asyncio.to_thread(scale_expirers, release, 0)
    try:
        await asyncio.to_thread(release.kubectl, "delete", "pod", *killed, *AT_ONCE, "--ignore-not-found")
        await asyncio.to_thread(until, lambda: release.objects("pods", EXPIRERS) == [], "no expirer")
        yield
    finally:
        await asyncio.to_thread(scale_expirers, release, 2)


def scale_expirers(release: Release, count: int) -> None:
    """Scales the expirer to this number of pods."""
    release.kubectl("scale", "deployment", "rowlock-expirer", f"--replicas={count}")
