"""The fault of a full disk under a PostgreSQL."""

import asyncio
import random
from contextlib import suppress

import asyncpg

from load.campaign.pair import Pair
from load.campaign.system import System

WAL_FULL_SHARE = 0.5
WAL_FILES_MAX = 6
"""Fewer than `wal_keep_size`: a standby that could not write them gets them later."""
NEXT_WAL_FILE = """
select pg_logical_emit_message(false, 'campaign', ''), pg_switch_wal()
"""


async def postgres_disk_full(system: System, chance: random.Random, seconds: float) -> None:
    """The primary or the standby can write no further block. Without one for the WAL it crashes and does not start."""
    leader, standby = system.pair.leader, system.pair.standby
    server = chance.choice((leader, leader, standby))
    disk = system.pair.disks[system.pair.servers.index(server)]
    await asyncio.to_thread(disk.fill)
    try:
        if chance.random() < WAL_FULL_SHARE:
            await use_up_wal(system.pair)
        await asyncio.sleep(seconds)
    finally:
        await asyncio.to_thread(disk.free)
        await system.pair.recover(server)


async def use_up_wal(pair: Pair) -> None:
    """Switches to further WAL files until no prepared one is left on a full disk."""
    with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection = await pair.connect()
        try:
            for _ in range(WAL_FILES_MAX):
                await connection.execute(NEXT_WAL_FILE)
        finally:
            connection.terminate()
