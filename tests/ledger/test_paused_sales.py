"""A session that is taken off sale: no new holds, whatever was under way; what is held or sold stays."""

import asyncio

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import Postgres
from service.database import Connection, create_engine
from service.errors import SalesPaused
from service.ledger.claims import Held
from service.sessions.pausing import pause, resume
from service.settings import Settings
from tests.stage.edge import Refused
from tests.stage.factories import Account, book, hold_of, make_customers, make_manager, make_session, pay, release
from tests.stage.forcing import locked, make_box_office, patient_settings
from tests.stage.waiting import until_lock_waits

PAUSED = Refused(409, "sales-paused")


async def change(client: httpx.AsyncClient, manager: Account, session_id: int, verb: str) -> httpx.Response:
    """`pause` or `resume`."""
    return await client.post(f"/manager/session/{session_id}/{verb}", headers=manager.headers)


async def test_a_pause_refuses_new_holds_and_nothing_else(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    manager, (first, second, third) = await make_manager(sql, settings), await make_customers(sql, settings, 3)
    session, other = await make_session(sql, settings), await make_session(sql, settings)
    paid, released, free, *_ = session.seat_ids
    ids = [
        (await book(client, customer, seat_id, key="first")).json()["reservationId"]
        for customer, seat_id in ((first, paid), (second, released))
    ]
    paused = await change(client, manager, session.id, "pause")
    assert paused.json()["pausedAt"]
    refused = await book(client, third, free)
    assert PAUSED.complaint(refused) is None
    assert refused.json()["sessionId"] == session.id
    assert (await book(client, third, other.seat_ids[0])).status_code == 201
    assert (await book(client, first, paid, key="first")).headers["idempotency-replayed"] == "true"
    assert (await pay(client, first, ids[0])).status_code == 200
    assert (await release(client, second, ids[1])).status_code == 200
    assert PAUSED.complaint(await book(client, third, released)) is None
    # A repetition changes nothing.
    assert (await change(client, manager, session.id, "pause")).json() == paused.json()
    listed = (await client.get("/customer/list-sessions")).json()["sessions"]
    assert {line["sessionId"]: line["paused"] for line in listed} == {session.id: True, other.id: False}
    assert (await change(client, manager, session.id, "resume")).json() == {"sessionId": session.id, "pausedAt": None}
    assert (await book(client, third, free)).status_code == 201


async def test_only_managers_pause_and_only_what_exists(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    manager, (customer,) = await make_manager(sql, settings), await make_customers(sql, settings, 1)
    session = await make_session(sql, settings)
    for verb in ("pause", "resume"):
        assert Refused(403, "forbidden").complaint(await change(client, customer, session.id, verb)) is None
        assert Refused(404, "not-found").complaint(await change(client, manager, session.id + 1, verb)) is None


@pytest.fixture
async def engine(postgres: Postgres, sql: Connection) -> AsyncEngine:  # noqa: ARG001 - emptied first
    """Its requests wait for as long as the test wants."""
    return create_engine(patient_settings(postgres), "rowlock-test")


@pytest.mark.parametrize("members", [1, 2], ids=["alone", "in a list"])
async def test_a_hold_that_waits_sees_the_pause(
    postgres: Postgres, sql: Connection, settings: Settings, engine: AsyncEngine, members: int
) -> None:
    customers, session = await make_customers(sql, settings, members), await make_session(sql, settings)
    box_office = make_box_office(engine)
    requests = [hold_of(customer, session.seat_ids[n]) for n, customer in enumerate(customers)]
    async with locked(postgres, "seats", session.seat_ids[0]):
        held = asyncio.create_task(box_office.hold_all(requests))
        await until_lock_waits(sql)
        await pause(sql, session.id)
    assert [type(answer) for answer in await held] == [SalesPaused] * members
    await resume(sql, session.id)
    assert [type(answer) for answer in await box_office.hold_all(requests)] == [Held] * members
    await engine.dispose()


async def test_a_hold_that_came_before_the_pause_is_granted(
    postgres: Postgres, sql: Connection, settings: Settings, engine: AsyncEngine
) -> None:
    (customer,), session = await make_customers(sql, settings, 1), await make_session(sql, settings)
    async with locked(postgres, "seats", session.seat_ids[0]) as stranger:
        await stranger.execute("update sessions set paused_at = clock_timestamp()")
        # The pause has not been committed, so the hold neither sees it nor waits for it.
        (held,) = await make_box_office(engine).hold_all([hold_of(customer, session.seat_ids[1])])
    assert isinstance(held, Held)
    await engine.dispose()
