"""The counts in the list of sessions: counted once for all who wait, whose failure they share too."""

import asyncio
import time

import asyncpg
import httpx

from dev.postgres import Postgres
from service.database import Connection
from service.settings import Settings
from tests.conftest import serving
from tests.stage.factories import make_session
from tests.stage.waiting import until_lock_waits

COUNT = "%sum(cardinality(seat_ids))%"


async def test_requests_for_the_same_page_share_one_count(
    client: httpx.AsyncClient, sql: Connection, settings: Settings, postgres: Postgres
) -> None:
    await make_session(sql, settings)
    async with sql.transaction():
        await sql.execute("lock table reservations in access exclusive mode")
        pages = [asyncio.create_task(client.get("/customer/list-sessions")) for _ in range(8)]
        await until_lock_waits_elsewhere(postgres, 1)
    replies = await asyncio.gather(*pages)
    assert {reply.status_code for reply in replies} == {200}


async def test_requests_for_the_same_page_share_a_failed_count(sql: Connection, settings: Settings) -> None:
    impatient = settings.model_copy(update={"lock_timeout_ms": 500})
    await make_session(sql, settings)
    async with serving(impatient) as client, sql.transaction():
        await sql.execute("lock table reservations in access exclusive mode")
        began = time.monotonic()
        replies = await asyncio.gather(*(client.get("/customer/list-sessions") for _ in range(8)))
        assert time.monotonic() - began < 7 * 0.5
    assert {reply.status_code for reply in replies} == {503}


async def until_lock_waits_elsewhere(postgres: Postgres, count: int) -> None:
    """Returns when exactly `count` queries wait for the table, as a connection outside of the transaction sees it."""
    watcher = await asyncpg.connect(postgres.url())
    try:
        await until_lock_waits(watcher, count, COUNT)
        query = "select count(*) from pg_stat_activity where query like $1 and pid <> pg_backend_pid()"
        assert await watcher.fetchval(query, COUNT) == count
    finally:
        await watcher.close()
