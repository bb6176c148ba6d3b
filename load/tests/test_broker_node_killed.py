"""A RabbitMQ cluster loses one node of three, and then two: events are published, holds end, and nothing is lost.

The queues are declared through the first node, so their leaders are there. The expirer is a process of its own.
"""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dev.postgres import Postgres
from dev.rabbitmq_cluster import Cluster
from load.tests.test_broker_away import until_all_are_back, until_begun, until_noticed, until_told
from service.broker.link import Link
from service.broker.topology import HOLDS, PARKED_QUEUE
from service.database import Connection
from service.settings import Settings
from tests.stage.broker import QUORUM, Listener, forget_everything, listening, message_count, write_queues_down
from tests.stage.factories import make_settings
from tests.stage.holdings import make_holds
from tests.stage.processes import Process, expirer_process
from tests.stage.waiting import until

HOLD_SECONDS = 3
OPTIONS = {"hold_seconds": HOLD_SECONDS, "broker_connect_timeout_ms": 1_000, "confirm_timeout_ms": 2_000}
SWEEP_MS = 5_000
"""A hint that is not confirmed before the election ends is dropped, and the sweep ends its hold."""
LATE_SECONDS_MAX = 15
"""An election, a new connection, the sweep's interval, and a machine that is busy with three nodes."""
HOLDS_QUEUE = f"{HOLDS}.{HOLD_SECONDS * 1000}ms"

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """Three nodes."""
    folder = Path(tempfile.mkdtemp(prefix="rowlock-cluster-"))
    made = Cluster(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)


@pytest.fixture
def cluster(nodes: Cluster) -> Iterator[Cluster]:
    """Three nodes that work, without queues."""
    forget_everything(nodes.url)
    yield nodes
    nodes.ensure_up()


@pytest.fixture
def settings(postgres: Postgres, sql: Connection, cluster: Cluster) -> Settings:  # noqa: ARG001 - emptied first
    """They name the first node last."""
    first, *others = (node.url for node in cluster.nodes)
    return make_settings(postgres.url(), broker_url=";".join([*others, first]), **OPTIONS)


@asynccontextmanager
async def working(sql: Connection, settings: Settings, cluster: Cluster, **options: Any) -> AsyncIterator[Process]:
    """An expirer that is connected to the second node."""
    link = Link(make_settings(settings.database_url.get_secret_value(), broker_url=cluster.nodes[0].url, **OPTIONS))
    with link.connected():
        pass
    link.close()
    write_queues_down(cluster.nodes[0])
    assert settings.broker_url is not None
    url = settings.broker_url.get_secret_value()
    async with expirer_process(
        settings.database_url.get_secret_value(), broker_url=url, **OPTIONS, **options
    ) as expirer:
        await until_begun(sql)
        yield expirer


async def until_heard(sql: Connection, listener: Listener) -> None:
    """Returns when the listener has every event of these holds, which still wait in RabbitMQ."""

    async def numbered() -> bool:
        return not await sql.fetchval("select exists (select from events where number is null)")

    await until(numbered, "a number for each event")
    await listener.until(await sql.fetchval("select max(number) from events"))


@pytest.mark.parametrize("killed", [0, 1], ids=["with the leaders", "with the connections"])
async def test_a_killed_node_stops_neither_events_nor_expiry(
    sql: Connection, settings: Settings, cluster: Cluster, killed: int
) -> None:
    with listening(cluster.nodes[0].url, QUORUM) as listener:
        listener.url = cluster.url
        async with working(sql, settings, cluster, sweep_interval_ms=SWEEP_MS) as expirer:
            await make_holds(sql, settings, 8, HOLD_SECONDS)
            await until_heard(sql, listener)
            assert cluster.leader_of(HOLDS_QUEUE) is cluster.nodes[0]
            cluster.nodes[killed].kill()
            await make_holds(sql, settings, 8, HOLD_SECONDS)
            assert await until_all_are_back(sql) < LATE_SECONDS_MAX
            await until_told(sql, listener)
            cluster.ensure_up()
            await make_holds(sql, settings, 8, HOLD_SECONDS)
            assert await until_all_are_back(sql) < LATE_SECONDS_MAX
            await until_told(sql, listener)
            assert expirer.process.returncode is None
    assert message_count(cluster.url, PARKED_QUEUE) == 0


async def test_without_a_majority_events_wait_and_the_sweep_works(
    sql: Connection, settings: Settings, cluster: Cluster
) -> None:
    with listening(cluster.nodes[0].url, QUORUM) as listener:
        listener.url = cluster.url
        async with working(sql, settings, cluster, sweep_interval_ms=200) as expirer:
            await make_holds(sql, settings, 8, HOLD_SECONDS)
            await until_heard(sql, listener)
            for node in cluster.nodes[:2]:
                node.kill()
            await make_holds(sql, settings, 8, HOLD_SECONDS)
            assert await until_all_are_back(sql) < LATE_SECONDS_MAX
            await until_noticed(expirer)
            cluster.ensure_up()
            await until_told(sql, listener)
            assert expirer.process.returncode is None
    assert message_count(cluster.url, PARKED_QUEUE) == 0
