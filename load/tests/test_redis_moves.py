"""Redis behind Sentinel: the master is killed or moved, and the running processes find the next one."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis as AsyncRedis

from dev.processes import Server
from dev.servers import Redis
from service.cache import Cache
from service.database import Connection
from service.errors import CacheAway
from service.settings import Settings
from tests.stage.factories import book, make_customer, make_session, make_settings
from tests.stage.processes import api_process, expirer_process
from tests.stage.seat_maps import assert_map_is_right, until_from
from tests.stage.waiting import until

NAME, SENTINEL_PASSWORD = "seats", "of-the-sentinels"
BACK_SECONDS_MAX = 15.0
SILENT_MS = 500
CONFIGURATION = """
port {port}
bind 127.0.0.1
dir {folder}
requirepass {password}
sentinel sentinel-pass {password}
sentinel monitor {name} 127.0.0.1 {master.port} 2
sentinel auth-pass {name} {master.password}
sentinel down-after-milliseconds {name} {silent_ms}
sentinel failover-timeout {name} 3000
"""


@dataclass(slots=True)
class Sentinel(Server):
    """One that watches `master`."""

    master: Redis = field(kw_only=True)

    def launch(self) -> None:
        """Starts the process."""
        self.folder.mkdir(parents=True)
        file = self.folder / "sentinel.conf"
        facts = {"port": self.port, "folder": self.folder, "password": SENTINEL_PASSWORD, "name": NAME}
        file.write_text(CONFIGURATION.format(master=self.master, silent_ms=SILENT_MS, **facts))
        self._run(["redis-server", str(file), "--sentinel"])


@dataclass(frozen=True, slots=True)
class Watched:
    """A master, its replica, and three sentinels that watch them."""

    master: Redis
    replica: Redis
    sentinels: list[Sentinel]

    @property
    def url(self) -> str:
        """How the service connects."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://:{self.master.password}@{hosts}/{NAME}/0?sentinel_password={SENTINEL_PASSWORD}"

    async def ask(self, *command: str) -> list[bytes]:
        """The first sentinel's answer."""
        port = self.sentinels[0].port
        async with AsyncRedis(port=port, password=SENTINEL_PASSWORD) as client:
            answer = await client.execute_command("sentinel", *command)  # type: ignore[no-untyped-call]
            return list(answer or [])

    async def know_each_other(self) -> bool:
        """Whether a failover is possible."""
        others, replicas = await self.ask("sentinels", NAME), await self.ask("replicas", NAME)
        return len(others) == len(self.sentinels) - 1 and len(replicas) == 1


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    """All of them are running and know each other."""
    folder = Path(tempfile.mkdtemp(prefix="rowlock-sentinel-"))
    master = Redis(folder / "master")
    replica = Redis(folder / "replica", password=master.password)
    sentinels = [Sentinel(folder / f"sentinel-{number}", master=master) for number in range(3)]
    servers = [master, replica, *sentinels]
    try:
        for server in servers[:2]:
            await asyncio.to_thread(server.start)
            async with AsyncRedis(port=server.port, password=master.password) as client:
                await client.config_set("masterauth", master.password)
                await client.config_set("repl-diskless-sync-delay", "0")
        async with AsyncRedis(port=replica.port, password=master.password) as client:
            await client.replicaof("127.0.0.1", master.port)
        for sentinel in sentinels:
            await asyncio.to_thread(sentinel.start)
        made = Watched(master, replica, sentinels)
        await until(made.know_each_other, "sentinels that know each other and the replica")
        yield made
    finally:
        for server in servers:
            await asyncio.to_thread(server.kill)
        shutil.rmtree(folder)


def cache_of(settings: Settings, watched: Watched) -> Cache:
    """As a process has it."""
    return Cache(
        settings.model_copy(update={"redis_url": make_settings("postgresql://x", redis_url=watched.url).redis_url})
    )


async def written_to(cache: Cache) -> int:
    """The port of the server that takes a write now."""

    async def write(redis: "AsyncRedis") -> int:
        await redis.set("written", 1)
        return int((await redis.config_get("port"))["port"] or 0)

    return await cache.run(write)


async def until_written_to(cache: Cache, server: Redis) -> None:
    """Returns when the server takes the writes."""

    async def moved() -> bool:
        try:
            return await written_to(cache) == server.port
        except CacheAway:
            return False

    await until(moved, "a write to the other server", BACK_SECONDS_MAX)


async def test_maps_and_limits_are_back_after_the_master_dies(
    settings: Settings, sql: Connection, watched: Watched
) -> None:
    on_sale, customer = await make_session(sql, settings), await make_customer(sql, settings)
    url = settings.database_url.get_secret_value()
    async with (
        # A limit as low as this one is counted in Redis at once.
        api_process(url, redis_url=watched.url, account_requests_per_minute=40) as api,
        expirer_process(url, redis_url=watched.url),
        httpx.AsyncClient(base_url=api.url, timeout=30) as client,
    ):
        await until_from(client, on_sale, "redis")
        await asyncio.to_thread(watched.master.kill)
        began = time.monotonic()
        assert (await book(client, customer, on_sale.seat_ids[0])).status_code == httpx.codes.CREATED
        await until_from(client, on_sale, "postgresql")
        await until_from(client, on_sale, "redis")
        print(f"maps come from Redis again {time.monotonic() - began:.1f} s after its master died")  # noqa: T201
        assert time.monotonic() - began < BACK_SECONDS_MAX
        await assert_map_is_right(client, sql, on_sale)
        assert (await book(client, customer, on_sale.seat_ids[1])).status_code == httpx.codes.CREATED
        async with AsyncRedis.from_url(watched.replica.url) as redis:
            assert await redis.keys("rowlock:limits*")


async def test_writes_follow_a_master_that_is_moved(settings: Settings, sql: Connection, watched: Watched) -> None:  # noqa: ARG001
    cache = cache_of(settings, watched)
    assert await written_to(cache) == watched.master.port
    await watched.ask("failover", NAME)
    await until_written_to(cache, watched.replica)
    await cache.close()


async def test_a_silent_sentinel_leaves_time_for_the_others(settings: Settings, watched: Watched) -> None:
    await asyncio.to_thread(watched.sentinels[0].pause)
    cache = cache_of(settings, watched)
    assert await written_to(cache) == watched.master.port
    await cache.close()
