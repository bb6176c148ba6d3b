"""A new epoch begins, and the old maps are not read, in another history of PostgreSQL, with another run of Redis, on an
operator's request, and when the projector's cursor was dropped.
"""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import Redis
from service.database import Connection
from service.events import cursors
from service.migrate import migrate
from service.seatmap.encoding import Change
from service.seatmap.keys import BUMP
from service.seatmap.stored import READ_HISTORY
from service.seatmap.updating import MapUpdates
from service.settings import Settings
from tests.conftest import EMPTY_TABLES
from tests.stage.factories import OnSale, make_customer, make_session
from tests.stage.forcing import give
from tests.stage.seat_maps import Projection, projecting, stored_states, with_redis
from tests.stage.servers import Servers
from tests.stage.waiting import until

IDENTITY = """
select system_identifier::text || ' ' || timeline_id
from pg_control_system(), pg_control_checkpoint()
"""
LONG = {"map_fresh_ms": 60_000, "map_wait_ms": 5_000}


async def mapped(projection: Projection, on_sale: OnSale) -> bytes:
    """The states, as Redis has them."""
    seat_map = await projection.get(on_sale)
    assert seat_map.source == "redis"
    return seat_map.states


async def test_an_operator_can_begin_a_new_epoch(projection: Projection, sql: Connection) -> None:
    on_sale = await make_session(sql, projection.settings)
    await projection.step()
    assert await mapped(projection, on_sale) == b"A" * 16
    id_ = await give(sql, await make_customer(sql, projection.settings), *on_sale.seat_ids[:3])
    await projection.step()
    # Manual changes of rows, which leave the versions and the log as they were.
    await sql.execute("update seats set state = 'AVAILABLE', reservation_id = null, version = 1")
    await sql.execute("delete from events where reservation_id = $1", id_)
    await sql.execute("delete from reservations where id = $1", id_)
    await projection.step()
    assert await mapped(projection, on_sale) == b"HHH" + b"A" * 13
    await projection.redis.incr(BUMP)
    await projection.step()
    assert await mapped(projection, on_sale) == b"A" * 16


async def test_maps_are_built_again_after_the_cursor_was_dropped(projection: Projection, sql: Connection) -> None:
    on_sale = await make_session(sql, projection.settings)
    await projection.number()
    await projection.step()
    assert await mapped(projection, on_sale) == b"A" * 16
    await projection.projector.close()
    assert await cursors.drop_cursor(sql, "cache")
    # Without a cursor no projector writes this to Redis.
    await give(sql, await make_customer(sql, projection.settings), *on_sale.seat_ids[:3])
    await projection.number()
    await projection.step()
    assert await mapped(projection, on_sale) == b"HHH" + b"A" * 13


async def test_emptied_and_filled_tables_are_another_history(projection: Projection, sql: Connection) -> None:
    on_sale = await make_session(sql, projection.settings)
    await give(sql, await make_customer(sql, projection.settings), *on_sale.seat_ids)
    await projection.step()
    assert await mapped(projection, on_sale) == b"H" * 16
    await sql.execute(EMPTY_TABLES)
    again = await make_session(sql, projection.settings, 17)
    assert again.id == on_sale.id
    await projection.step()
    assert await mapped(projection, again) == b"A" * 17
    assert len((await projection.get(again)).layout.seat_ids) == 17


async def test_a_step_over_a_restart_of_redis_renews_no_watermark(
    settings: Settings, redis: Redis | Container, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = await make_customer(sql, settings)
    on_sale = await make_session(sql, settings)
    async with projecting(with_redis(settings.database_url.get_secret_value(), redis, **LONG)) as projection:
        await projection.step()
        assert await mapped(projection, on_sale) == b"A" * 16
        await projection.redis.save()
        await give(sql, customer, on_sale.seat_ids[0])
        await projection.number()
        await projection.step()
        assert await mapped(projection, on_sale) == b"H" + b"A" * 15
        seen = await projection.get(on_sale)
        apply = MapUpdates.apply

        async def apply_after_restart(updates: MapUpdates, epoch: str, changes: dict[int, list[Change]]) -> None:
            monkeypatch.undo()
            await asyncio.to_thread(redis.kill)
            await asyncio.to_thread(redis.start)
            await apply(updates, epoch, changes)

        monkeypatch.setattr(MapUpdates, "apply", apply_after_restart)
        await projection.projector.step()
        # What the snapshot's own watermark says may still be served: it says that it is older.
        old = await projection.get(on_sale)
        assert (old.source, old.states) == ("redis", b"A" * 16)
        assert old.as_of < seen.as_of
        await projection.step()
        assert await mapped(projection, on_sale) == b"H" + b"A" * 15


@pytest.fixture
def own(servers: Servers) -> Iterator[Postgres]:
    """A server that the test may stop, with the schema."""
    server = servers.make(f"own-{len(list(servers.folder.iterdir()))}")
    asyncio.run(migrate(server.url()))
    yield server
    server.kill()


@asynccontextmanager
async def connected(server: Postgres) -> AsyncIterator[Connection]:
    """A connection for as long as the server stays as it is."""
    connection = await asyncpg.connect(server.url())
    try:
        yield connection
    finally:
        await connection.close()


def copy(data: Path) -> None:
    """The files as they are now, of a server that is stopped."""
    subprocess.run(["cp", "-a", str(data), f"{data}.copy"], check=True)  # noqa: S607


def copy_back(data: Path, _server: Postgres) -> None:
    """The files as they were, and nothing tells that they are old."""
    subprocess.run(["rm", "-rf", str(data)], check=True)  # noqa: S607
    subprocess.run(["cp", "-a", f"{data}.copy", str(data)], check=True)  # noqa: S607


def recover_to_new_timeline(data: Path, server: Postgres) -> None:
    """As a point-in-time restore or a promoted standby does."""
    copy_back(data, server)
    subprocess.run(["cp", "-a", str(data / "PG_VERSION"), str(data / "recovery.signal")], check=True)  # noqa: S607
    server.options["restore_command"] = "false"


@pytest.mark.parametrize("restore", [copy_back, recover_to_new_timeline])
async def test_a_restored_database_is_shown_as_it_is_now(
    own: Postgres, redis: Redis | Container, restore: Callable[[Path, Postgres], None]
) -> None:
    data = own.folder / "data"
    settings = with_redis(own.url(), redis, **LONG)
    async with projecting(settings) as projection:
        async with connected(own) as sql:
            customer = await make_customer(sql, settings)
            on_sale = await make_session(sql, settings)
            await give(sql, customer, on_sale.seat_ids[0])
            await projection.number()
            await projection.step()
            assert await mapped(projection, on_sale) == b"H" + b"A" * 15
            await sql.execute("checkpoint")
            identity = await sql.fetchval(IDENTITY)
        own.stop()
        copy(data)
        own.start()
        async with connected(own) as sql:
            await give(sql, customer, *on_sale.seat_ids[5:9])
            lost = await make_session(sql, settings, 20)
            await projection.number()
            await projection.step()
            assert await mapped(projection, on_sale) == b"HAAAAHHHH" + b"A" * 7
            assert await mapped(projection, lost) == b"A" * 20
        own.stop()
        restore(data, own)
        own.start()
        async with connected(own) as sql:
            await until(lambda: is_writable(sql), "the end of the recovery")
            if restore is copy_back:
                assert await sql.fetchval(IDENTITY) == identity, "the server itself does not know"
            # As many changes as there were: neither numbers nor positions in the log tell the two histories apart.
            await give(sql, customer, *on_sale.seat_ids[12:16])
            other = await make_session(sql, settings, 30)
            assert other.id == lost.id
            await projection.number()
            await projection.step()
            assert await mapped(projection, on_sale) == b"H" + b"A" * 11 + b"HHHH" == await stored_states(sql, on_sale)
            assert len(await mapped(projection, other)) == len((await projection.get(other)).layout.seat_ids) == 30


async def is_writable(sql: Connection) -> bool:
    """Whether the server has left its recovery."""
    return not await sql.fetchval("select pg_is_in_recovery()")


async def test_each_start_and_each_database_has_its_own_history(own: Postgres) -> None:
    async with connected(own) as sql:
        first = await sql.fetchval(READ_HISTORY)
        assert await sql.fetchval(READ_HISTORY) == first
        await sql.execute("create database another template template0")
    await migrate(own.url("another"))
    another = await asyncpg.connect(own.url("another"))
    try:
        assert await another.fetchval(READ_HISTORY) != first
    finally:
        await another.close()
    own.kill()
    own.start()
    async with connected(own) as sql:
        assert await sql.fetchval(READ_HISTORY) != first
