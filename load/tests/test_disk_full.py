"""PostgreSQL's disk is full: a hold is refused with 503, nothing acknowledged is lost, and space alone repairs it."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from dev import postgres
from load.campaign import pair
from load.campaign.disk_full import use_up_wal
from load.campaign.pair import Pair
from service.database import Connection
from service.migrate import migrate
from tests.conftest import serving
from tests.stage.factories import Account, book, make_customer, make_session, make_settings, pay

SEATS, SEATS_EACH = 800, 8

RESERVATIONS = """
select id, state
from reservations
"""


@pytest.fixture
async def servers() -> AsyncIterator[Pair]:
    """A primary with the schema, and its synchronous standby; the data of each is on a file system of its own."""
    folder = Path(tempfile.mkdtemp(prefix="rowlock-disk-"))
    made = pair.make(folder, postgres.wheel_binaries(), synchronous=True, own_disks=True)
    try:
        if made.disks[0].why_not:
            pytest.skip(made.disks[0].why_not)
        await made.start()
        await migrate(made.leader.url())
        yield made
    finally:
        await asyncio.to_thread(made.stop)
        shutil.rmtree(folder)


async def prepare(servers: Pair) -> tuple[Account, list[list[int]]]:
    """A customer, and the seats of a session, some for each hold."""
    connection = await servers.connect()
    settings = make_settings(servers.url)
    customer, session = await make_customer(connection, settings), await make_session(connection, settings, SEATS)
    await connection.close()
    seats = list(session.seat_ids)
    return customer, [seats[at : at + SEATS_EACH] for at in range(0, SEATS, SEATS_EACH)]


async def states(connection: Connection) -> dict[UUID, str]:
    """The state of each reservation."""
    return {row["id"]: row["state"] for row in await connection.fetch(RESERVATIONS)}


async def hold_until_refused(
    client: httpx.AsyncClient, customer: Account, seats: list[list[int]]
) -> tuple[list[UUID], httpx.Response]:
    """The reservations that were acknowledged, and the first refusal: a table needs a further block by then."""
    held: list[UUID] = []
    for some in seats:
        answer = await book(client, customer, *some)
        if answer.status_code != httpx.codes.CREATED:
            return held, answer
        held.append(UUID(answer.json()["reservationId"]))
    raise AssertionError("no table needed a further block")


async def test_a_hold_on_a_full_disk_is_refused_and_changes_nothing(servers: Pair) -> None:
    customer, seats = await prepare(servers)
    connection = await servers.connect()
    async with serving(make_settings(servers.url, seats_per_customer_max=SEATS)) as client:
        servers.disks[servers.primary].fill()
        held, refusal = await hold_until_refused(client, customer, seats)
        assert refusal.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert refusal.json()["type"] == "urn:rowlock:problem:database-away"
        assert await states(connection) == dict.fromkeys(held, "HELD")
        servers.disks[servers.primary].free()
        assert (await book(client, customer, *seats[len(held)])).status_code == httpx.codes.CREATED
    await connection.close()


async def test_holds_resume_after_postgresql_had_no_block_for_its_log(servers: Pair) -> None:
    customer, seats = await prepare(servers)
    async with serving(make_settings(servers.url, seats_per_customer_max=SEATS)) as client:
        held = (await book(client, customer, *seats[0])).json()["reservationId"]
        servers.disks[servers.primary].fill()
        await use_up_wal(servers)

        assert "PANIC:  could not write" in servers.leader.log.read_text()
        refusal = await book(client, customer, *seats[1])
        assert refusal.status_code == httpx.codes.SERVICE_UNAVAILABLE
        servers.disks[servers.primary].free()
        await servers.recover(servers.leader)
        assert (await pay(client, customer, held)).status_code == httpx.codes.OK
        assert (await book(client, customer, *seats[1])).status_code == httpx.codes.CREATED


async def test_a_full_standby_delays_holds_and_loses_none(servers: Pair) -> None:
    customer, seats = await prepare(servers)
    settings = make_settings(servers.url, outcome_wait_ms=500, statement_timeout_ms=1_000, lock_timeout_ms=500)
    async with serving(settings) as client:
        servers.disks[1 - servers.primary].fill()
        await use_up_wal(servers)
        refusal = await book(client, customer, *seats[0], key="first")
        assert refusal.status_code == httpx.codes.SERVICE_UNAVAILABLE
        servers.disks[1 - servers.primary].free()
        await servers.recover(servers.standby)
        held = await book(client, customer, *seats[0], key="first")
        assert held.status_code == httpx.codes.CREATED
        await servers.fail_over()
        connection = await servers.connect()
        assert await states(connection) == {UUID(held.json()["reservationId"]): "HELD"}
        await connection.close()
