"""The faults. Each is a coroutine that begins it, keeps it up for the planned time, and undoes it."""

import asyncio
import random
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from redis.asyncio import Redis as RedisClient

from dev.rabbitmq_cluster import Cluster
from load.campaign.disk_full import postgres_disk_full
from load.campaign.pair import lose
from load.campaign.system import LOCK_TIMEOUT_MS, System
from service.broker.topology import EXPIRED_QUEUE
from tests.stage import letters, proxy

Do = Callable[[System, random.Random, float], Awaitable[int | None]]
"""It may return when the part served again, in microseconds since the epoch, where that was before the end."""
CLOCK_OFFSET_SECONDS_MAX = 3_600
MEMORY, LITTLE_MEMORY = "1GB", "1MB"


async def api_killed(system: System, chance: random.Random, seconds: float) -> None:
    """SIGKILL at any instruction; started again after the time."""
    process = chance.choice(system.apis)
    await process.kill()
    await asyncio.sleep(seconds / 4)
    await process.start()


async def api_stopped(system: System, chance: random.Random, seconds: float) -> None:
    """SIGSTOP, then SIGCONT: it continues in the middle of its work, with old knowledge."""
    process = chance.choice(system.apis)
    process.send(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    process.send(signal.SIGCONT)


async def expirer_killed(system: System, chance: random.Random, seconds: float) -> None:
    """SIGKILL at any instruction; started again after the time."""
    process = chance.choice(system.expirers)
    await process.kill()
    await asyncio.sleep(seconds)
    await process.start()


async def expirer_stopped(system: System, chance: random.Random, seconds: float) -> None:
    """Stopped for longer than its lease, so that another one has taken over when it goes on."""
    process = chance.choice(system.expirers)
    process.send(signal.SIGSTOP)
    await asyncio.sleep(seconds + 1.5)
    process.send(signal.SIGCONT)


async def clock_wrong(system: System, chance: random.Random, seconds: float) -> None:
    """An API and an expirer run with clocks that are up to an hour wrong."""
    processes = [chance.choice(system.apis), chance.choice(system.expirers)]
    offsets = [chance.choice((-1, 1)) * chance.randint(60, CLOCK_OFFSET_SECONDS_MAX) for _ in processes]
    for process, offset in zip(processes, offsets, strict=True):
        await process.kill()
        await process.start(offset)
    await asyncio.sleep(3 * seconds)
    for process in processes:
        await process.kill()
        await process.start()


async def postgres_restarted(system: System, _chance: random.Random, _seconds: float) -> None:
    """The primary dies at once and comes back."""
    server = system.pair.leader
    await asyncio.to_thread(lose, server)
    await asyncio.to_thread(server.start)


async def postgres_failed_over(system: System, _chance: random.Random, seconds: float) -> int:
    """The primary dies at once, the standby takes over, and the old one comes back as a standby.

    An asynchronous standby is left behind before that, so that the loss does not depend on luck.
    """
    if not system.pair.synchronous:
        await system.pair.detach_standby()
        await asyncio.sleep(seconds / 2)
    await system.pair.fail_over()
    promoted = time.time_ns() // 1_000
    await asyncio.sleep(seconds / 2)
    await system.pair.add_standby()
    return promoted


async def commit_cut(system: System, chance: random.Random, seconds: float) -> None:
    """The next COMMITs of the first API are cut before, in or after, swallowed, or answered late."""
    faults = list(proxy.Fault)
    strikes = [
        (where, where.strike(chance.choice(faults))) for where in system.proxies for _ in range(chance.randint(1, 4))
    ]
    await asyncio.sleep(seconds)
    for where, strike in strikes:
        strike.let_through.set()
        if strike in where.strikes:
            where.strikes.remove(strike)


async def connections_cut(system: System, chance: random.Random, _seconds: float) -> None:
    """All connections of the first API to PostgreSQL are cut."""
    await chance.choice(system.proxies).close()


async def backends_terminated(system: System, chance: random.Random, seconds: float) -> None:
    """`pg_terminate_backend` for some connections, several times."""
    connection = await system.pair.connect()
    try:
        for _ in range(chance.randint(1, 4)):
            await connection.execute(TERMINATE, chance.randint(1, 4))
            await asyncio.sleep(seconds / 4)
    finally:
        await connection.close()


TERMINATE = """
select pg_terminate_backend(pid)
from (
    select pid
    from pg_stat_activity
    where application_name like 'rowlock%'
    order by random()
    limit $1
) as chosen
"""


async def rows_locked(system: System, chance: random.Random, _seconds: float) -> None:
    """A stranger keeps the rows of some seats and customers for longer than `lock_timeout`."""
    connection = await system.pair.connect()
    try:
        async with connection.transaction():
            await connection.execute(LOCK_SEATS, chance.randint(1, 4))
            await asyncio.sleep(LOCK_TIMEOUT_MS / 1000 * chance.uniform(0.5, 3))
    finally:
        await connection.close()


LOCK_SEATS = """
select id
from seats
where id in (select id from seats order by random() limit $1)
order by id
for update
"""


async def redis_killed(system: System, _chance: random.Random, seconds: float) -> None:
    """Killed; comes back empty."""
    await asyncio.to_thread(system.redis.kill)
    system.redis.forget()
    await asyncio.sleep(seconds)
    await asyncio.to_thread(system.redis.start)


async def redis_emptied(system: System, _chance: random.Random, _seconds: float) -> None:
    """FLUSHALL."""
    async with RedisClient.from_url(system.redis.url) as client:
        await client.flushall()


async def redis_restored(system: System, _chance: random.Random, seconds: float) -> None:
    """Killed, and started with a snapshot of some seconds ago."""
    snapshot = system.redis.folder / "dump.rdb"
    async with RedisClient.from_url(system.redis.url) as client:
        await client.save()
    shutil.copy(snapshot, system.folder / "kept.rdb")
    await asyncio.sleep(seconds + 2)
    await asyncio.to_thread(system.redis.kill)
    shutil.copy(system.folder / "kept.rdb", snapshot)
    await asyncio.to_thread(system.redis.start)
    system.redis.forget()


async def redis_paused(system: System, _chance: random.Random, seconds: float) -> None:
    """Its connections stay, and it does not answer."""
    await asyncio.to_thread(system.redis.pause)
    await asyncio.sleep(seconds)
    system.redis.resume()


async def rabbitmq_killed(system: System, _chance: random.Random, seconds: float) -> None:
    """Killed, all of its nodes; comes back with its queues."""
    await asyncio.to_thread(system.rabbitmq.kill)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(system.rabbitmq.start)


async def rabbitmq_node_killed(system: System, _chance: random.Random, seconds: float) -> None:
    """Of three nodes the one with the leader of the inbox's queue is killed; comes back."""
    assert isinstance(system.rabbitmq, Cluster)
    node = await asyncio.to_thread(system.rabbitmq.leader_of, EXPIRED_QUEUE.name)
    await asyncio.to_thread(node.kill)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(node.start)


async def rabbitmq_paused(system: System, _chance: random.Random, seconds: float) -> None:
    """Its connections stay, and it does not answer."""
    await asyncio.to_thread(system.rabbitmq.pause)
    await asyncio.sleep(seconds)
    system.rabbitmq.resume()


async def rabbitmq_alarmed(system: System, _chance: random.Random, seconds: float) -> None:
    """Out of memory, so that it takes no messages."""
    try:
        await asyncio.to_thread(system.rabbitmq.control, "set_vm_memory_high_watermark", "absolute", LITTLE_MEMORY)
        await asyncio.sleep(seconds)
    finally:
        await asyncio.to_thread(system.rabbitmq.control, "set_vm_memory_high_watermark", "absolute", MEMORY)


async def letters_altered(system: System, chance: random.Random, seconds: float) -> None:
    """Dead letters come doubled, late, reversed, or not at all."""
    alter = chance.choice((letters.every_tenth_dropped, letters.all_doubled, letters.all_delayed, letters.all_reversed))
    async with letters.intercepted(system.rabbitmq.url, alter):
        await asyncio.sleep(seconds + 1)


FAULTS: Mapping[str, Do] = {
    do.__name__.replace("_", "-"): do
    for do in (
        api_killed, api_stopped, expirer_killed, expirer_stopped, clock_wrong, postgres_restarted,
        postgres_failed_over, postgres_disk_full, commit_cut, connections_cut, backends_terminated, rows_locked,
        redis_killed, redis_emptied, redis_restored, redis_paused, rabbitmq_killed, rabbitmq_node_killed,
        rabbitmq_paused, rabbitmq_alarmed, letters_altered,
    )
}  # fmt: skip
SLOW = {
    "postgres-failed-over", "postgres-disk-full", "clock-wrong", "rabbitmq-killed", "rabbitmq-node-killed",
    "rabbitmq-alarmed",
}  # fmt: skip
"""They take several seconds of a core."""
NEED_THREE_BROKERS = {"rabbitmq-node-killed"}
"""Without them RabbitMQ is one node, which starts in a third of the time."""


def kinds(names: str) -> list[str]:
    """The kinds that FAULTS= names, separated by commas: `all`, `none`, `fast`, or names. Raises ValueError."""
    named: dict[str, Any] = {"all": list(FAULTS), "none": [], "fast": [name for name in FAULTS if name not in SLOW]}
    if names in named:
        return list(named[names])
    chosen = [name.strip() for name in names.split(",")]
    if unknown := [name for name in chosen if name not in FAULTS]:
        raise ValueError(f"unknown faults {', '.join(unknown)}; known are all, none, fast, {', '.join(FAULTS)}")
    return chosen
