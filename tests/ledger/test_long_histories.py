"""A customer with very many ended holds: searches among them take no place from holds. Plans: tests/schema."""

import asyncio

import asyncpg

from dev.postgres import Postgres
from service.database import Connection
from tests.conftest import serving
from tests.stage.factories import book, make_customers, make_session
from tests.stage.forcing import patient_settings
from tests.stage.waiting import until_lock_waits


async def test_searches_leave_the_pool_to_holds(sql: Connection, postgres: Postgres) -> None:
    settings = patient_settings(postgres, pool_size=3, pool_wait_ms=300, history_searches_max=2)
    searcher, buyer = await make_customers(sql, settings, 2)
    session = await make_session(sql, settings)
    async with serving(settings) as client:

        async def search() -> int:
            return (await client.get("/customer/list-history?state=EXPIRED", headers=searcher.headers)).status_code

        other = await asyncpg.connect(postgres.url())
        # Holds do not read the table that the searches wait for.
        async with other.transaction():
            await other.execute("lock table payments in access exclusive mode")
            searches = [asyncio.create_task(search()) for _ in range(10)]
            await until_lock_waits(sql, 2)
            assert (await book(client, buyer, session.seat_ids[0])).status_code == 201
            assert await asyncio.gather(*searches[2:]) == [503] * 8
        assert await asyncio.gather(*searches[:2]) == [200] * 2
        await other.close()
