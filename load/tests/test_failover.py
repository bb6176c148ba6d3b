"""PostgreSQL fails over to its synchronous standby: nothing acknowledged is lost, whatever the primary was doing."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from dev import postgres
from load.campaign import pair
from load.campaign.pair import Pair, lose
from service.migrate import migrate
from tests.conftest import serving
from tests.stage.factories import Account, book, make_customer, make_session, make_settings, pay, release
from tests.stage.waiting import until

Settle = Callable[[httpx.AsyncClient, Account, str], Coroutine[Any, Any, httpx.Response]]

WAITS_FOR_STANDBY = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'"
END_WAITING = "select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'"


@pytest.fixture
async def servers() -> AsyncIterator[Pair]:
    """A primary with the schema, and its synchronous standby."""
    folder = Path(tempfile.mkdtemp(prefix="rowlock-failover-"))
    made = pair.make(folder, postgres.wheel_binaries(), synchronous=True)
    try:
        await made.start()
        await migrate(made.leader.url())
        yield made
    finally:
        await asyncio.to_thread(made.stop)
        shutil.rmtree(folder)


async def prepare(servers: Pair) -> tuple[Account, list[int]]:
    """A customer, and the seats of a session."""
    connection = await servers.connect()
    settings = make_settings(servers.url)
    customer, session = await make_customer(connection, settings), await make_session(connection, settings)
    await connection.close()
    return customer, list(session.seat_ids)


async def states(servers: Pair) -> list[str]:
    """The states of all reservations on the primary."""
    connection = await servers.connect()
    rows = await connection.fetch("select state from reservations order by id")
    await connection.close()
    return [row["state"] for row in rows]


async def until_a_commit_waits(servers: Pair) -> asyncpg.Connection:
    """Returns when a COMMIT waits for the standby, with a connection of the test's own."""
    connection = await servers.connect()

    async def waits() -> bool:
        return bool(await connection.fetchval(WAITS_FOR_STANDBY))

    await until(waits, "a COMMIT that waits for the standby")
    return connection


async def hold_is_cut_off(servers: Pair, client: httpx.AsyncClient, customer: Account, seat: int) -> httpx.Response:
    """A hold whose COMMIT is cut off while it waits for a standby that is down."""
    await asyncio.to_thread(servers.standby.kill)
    asking = asyncio.create_task(book(client, customer, seat, key="first"))
    connection = await until_a_commit_waits(servers)
    await connection.execute(END_WAITING)
    await connection.close()
    return await asking


async def test_a_sale_continues_on_the_promoted_standby(servers: Pair) -> None:
    customer, seats = await prepare(servers)
    async with serving(make_settings(servers.url)) as client:
        held = (await book(client, customer, seats[0])).json()["reservationId"]
        await servers.fail_over()
        assert (await pay(client, customer, held)).status_code == httpx.codes.OK
        assert (await book(client, customer, seats[1])).status_code == httpx.codes.CREATED
    assert await states(servers) == ["CONFIRMED", "HELD"]


async def test_a_hold_that_the_standby_lacks_is_not_acknowledged(servers: Pair) -> None:
    customer, seats = await prepare(servers)
    settings = make_settings(servers.url, outcome_wait_ms=500, statement_timeout_ms=1_000, lock_timeout_ms=500)
    async with serving(settings) as client:
        answer = await hold_is_cut_off(servers, client, customer, seats[0])
        assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
        # The primary crashes and comes back: now the hold is visible, though the standby lacks it.
        await asyncio.to_thread(lose, servers.leader)
        await asyncio.to_thread(servers.leader.start)
        assert await states(servers) == ["HELD"]
        repeated = await book(client, customer, seats[0], key="first")
        assert repeated.status_code == httpx.codes.SERVICE_UNAVAILABLE
        await servers.fail_over()
        assert await states(servers) == []


@pytest.mark.parametrize("settle", [pay, release])
async def test_a_payment_that_the_standby_lacks_is_not_acknowledged(servers: Pair, settle: Settle) -> None:
    customer, seats = await prepare(servers)
    settings = make_settings(servers.url, outcome_wait_ms=500, statement_timeout_ms=1_000, lock_timeout_ms=500)
    async with serving(settings) as client:
        held = (await book(client, customer, seats[0])).json()["reservationId"]
        await asyncio.to_thread(servers.standby.kill)
        asking = asyncio.create_task(settle(client, customer, held))
        await (await until_a_commit_waits(servers)).close()
        await asyncio.to_thread(lose, servers.leader)
        await asyncio.to_thread(servers.leader.start)
        await asking
        assert await states(servers) != ["HELD"]
        assert (await settle(client, customer, held)).status_code == httpx.codes.SERVICE_UNAVAILABLE
        await servers.fail_over()
        assert await states(servers) == ["HELD"]


async def test_a_hold_is_acknowledged_once_the_standby_has_it(servers: Pair) -> None:
    customer, seats = await prepare(servers)
    settings = make_settings(servers.url, outcome_wait_ms=500, statement_timeout_ms=1_000, lock_timeout_ms=500)
    async with serving(settings) as client:
        await hold_is_cut_off(servers, client, customer, seats[0])
        await asyncio.to_thread(servers.standby.start)
        assert (await book(client, customer, seats[0], key="first")).status_code == httpx.codes.CREATED
        await servers.fail_over()
    assert await states(servers) == ["HELD"]
