"""The counts in the list of sessions: from the maps in Redis where they are fresh, for the others from PostgreSQL."""

import asyncio

import httpx

from dev.postgres import Postgres
from service.api.cursors import FIRST_SESSION
from service.database import Connection
from service.seatmap.encoding import Counts
from service.seatmap.keys import WATERMARK
from service.sessions.listing import SessionList
from tests.conftest import serving
from tests.stage.factories import book, make_customers, make_session, pay
from tests.stage.forcing import give
from tests.stage.seat_maps import Projection, unreadable
from tests.stage.waiting import until, until_lock_waits


async def counts(projection: Projection, sessions: int) -> list[Counts]:
    """The counts of the first sessions on the list, in a process that remembers none."""
    page = await SessionList(projection.engine, projection.maps, 60.0).page(FIRST_SESSION, sessions)
    return [counted for _, counted in page]


async def test_the_list_is_right_with_and_without_maps(projection: Projection, sql: Connection) -> None:
    one, other = await make_customers(sql, projection.settings, 2)
    mapped, unmapped, untouched = [await make_session(sql, projection.settings, 16 + n) for n in range(3)]
    async with serving(projection.settings) as client:
        for customer, on_sale in ((one, mapped), (other, unmapped)):
            await book(client, customer, *on_sale.seat_ids[:3])
            paid = (await book(client, customer, *on_sale.seat_ids[5:7])).json()
            await pay(client, customer, paid["reservationId"])
        await projection.step()
        await projection.get(mapped)

        async def is_right() -> bool:
            return await listed(client) == {
                mapped.id: (11, 3, 2),
                unmapped.id: (12, 3, 2),
                untouched.id: (18, 0, 0),
            }

        await until(is_right, "the counts")


async def listed(client: httpx.AsyncClient) -> dict[int, tuple[int, int, int]]:
    """Available, held and sold."""
    page = (await client.get("/customer/list-sessions")).json()
    return {session["sessionId"]: tuple(session["seats"].values()) for session in page["sessions"]}


async def test_a_session_with_a_fresh_map_is_not_counted_in_postgresql(
    projection: Projection, postgres: Postgres, sql: Connection
) -> None:
    (customer,) = await make_customers(sql, projection.settings, 1)
    mapped, _ = [await make_session(sql, projection.settings) for _ in range(2)]
    await give(sql, customer, *mapped.seat_ids[:3])
    await projection.step()
    await projection.get(mapped)
    async with unreadable(postgres, "reservations"):
        # A query in PostgreSQL would wait for the lock.
        assert await asyncio.wait_for(counts(projection, 1), 20) == [Counts(3, 0)]
        both = asyncio.create_task(counts(projection, 2))
        await until_lock_waits(sql)
    assert await both == [Counts(3, 0), Counts(0, 0)]


async def test_without_fresh_maps_the_counts_come_from_postgresql(projection: Projection, sql: Connection) -> None:
    (customer,) = await make_customers(sql, projection.settings, 1)
    on_sale = await make_session(sql, projection.settings)
    await projection.step()
    await projection.get(on_sale)
    await give(sql, customer, *on_sale.seat_ids[:3])
    assert await counts(projection, 1) == [Counts(0, 0)], "as old as a fresh map may be"
    await projection.redis.delete(WATERMARK)
    assert await counts(projection, 1) == [Counts(3, 0)]
