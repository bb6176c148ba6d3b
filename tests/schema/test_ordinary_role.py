"""An account of PostgreSQL that may do no more than the service and the expirer need, and no superuser's work."""

import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import httpx
import pytest

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import Redis
from expirer.loops import keeper, sequencer, sweep
from expirer.loops.queues import FORGET_QUEUES, LIST_OTHERS, NOTE_QUEUE
from service.audit import observations
from service.database import Connection, create_engine, transaction
from service.settings import Settings
from tests.conftest import serving
from tests.stage.factories import OnSale, make_overdue
from tests.stage.seat_maps import assert_map_is_right, projecting, with_redis

GRANTS = {
    "alembic_version": "select",
    "accounts": "select, insert, update",
    "sign_in_failures": "select, insert, update, delete",
    "sessions": "select, insert",
    "seats": "select, insert, update",
    "reservations": "select, insert, update, delete",
    "payments": "select, insert",
    "events": "select, insert, update, delete",
    "cursors": "select, insert, update, delete",
    "hold_queues": "select, insert, delete",
    "audits": "select, insert, update",
}
PASSWORD = "correct horse battery"


@pytest.fixture
async def as_ordinary(postgres: Postgres, sql: Connection, redis: Redis | Container) -> AsyncIterator[Settings]:
    """The settings of a role with these grants only."""
    role, password = f"ordinary_{secrets.token_hex(4)}", secrets.token_hex(8)
    await sql.execute(f"create role {role} login password '{password}'")
    for table, verbs in GRANTS.items():
        await sql.execute(f"grant {verbs} on {table} to {role}")
    address = urlsplit(postgres.url())
    url = address._replace(netloc=f"{role}:{password}@{address.hostname}:{address.port}").geturl()
    yield with_redis(url, redis, map_fresh_ms=60_000, map_wait_ms=5_000)
    await sql.execute(f"drop owned by {role}")
    await sql.execute(f"drop role {role}")


async def sign_up(client: httpx.AsyncClient, email: str, role: str) -> dict[str, str]:
    """What a request of the new account carries; it signs in once more, and once in vain."""
    body = {"email": email, "password": PASSWORD, "name": "Ada", "role": role}
    assert (await client.post("/sign-up", json=body)).status_code == 201
    assert (await client.post("/sign-in", json={"email": email, "password": "wrong"})).status_code == 401
    reply = await client.post("/sign-in", json={"email": email, "password": PASSWORD})
    return {"Authorization": f"Bearer {reply.json()['token']}"}


async def sell(client: httpx.AsyncClient) -> tuple[int, str]:
    """A session with a paid, a released and a held seat; and the hold that is left."""
    manager, customer = [await sign_up(client, f"{role}@example.com", role) for role in ("MANAGER", "CUSTOMER")]
    body = {
        "movie": "Metropolis",
        "room": "Room 1",
        "showtime": (datetime.now(UTC) + timedelta(days=1)).isoformat(),
        "duration": 153,
        "price": 1250,
        "currency": "EUR",
        "placements": [f"A{n}" for n in range(16)],
    }
    session = (await client.post("/manager/create", json=body, headers=manager)).json()
    seats = [seat["seatId"] for seat in session["seats"]]
    held = [(await client.post(f"/customer/book/{seat}", headers=customer)).json() for seat in seats[:3]]
    paid, released, kept = [hold["reservationId"] for hold in held]
    assert (await client.put(f"/customer/pay/{paid}", headers=customer)).status_code == 200
    assert (await client.delete(f"/customer/reservation/{released}", headers=customer)).status_code == 200
    assert len((await client.get("/customer/list-history", headers=customer)).json()["reservations"]) == 1
    (listed,) = (await client.get("/customer/list-sessions")).json()["sessions"]
    assert listed["seats"] == {"available": 14, "held": 1, "sold": 1}
    return session["sessionId"], kept


@pytest.mark.oldest_postgresql
async def test_an_ordinary_role_is_enough_for_everything(as_ordinary: Settings, sql: Connection) -> None:
    async with serving(as_ordinary) as client, projecting(as_ordinary) as projection:
        assert (await client.get("/readyz")).status_code == 200
        session_id, kept = await sell(client)
        await make_overdue(sql, UUID(kept))
        engine = create_engine(as_ordinary, "rowlock-expirer")
        await sweep.step(engine, as_ordinary)
        await sequencer.step(engine, as_ordinary, lambda: None)
        await projection.step()
        await keeper.step(engine, as_ordinary)
        await projection.projector.close()
        async with transaction(engine) as connection:
            await connection.execute(NOTE_QUEUE, 30_000)
            assert await connection.fetch(LIST_OTHERS, 1)
            await connection.execute(FORGET_QUEUES, [30_000])
        await engine.dispose()
        reply = await assert_map_is_right(client, sql, OnSale(session_id, ()))
        assert (reply["source"], len(reply["seats"])) == ("redis", 16)
        assert [seat["state"] for seat in reply["seats"][:3]] == ["SOLD", "AVAILABLE", "AVAILABLE"]


async def test_member_of_pg_monitor_sees_sessions_of_other_accounts(
    as_ordinary: Settings, sql: Connection, postgres: Postgres
) -> None:
    engine = create_engine(as_ordinary, "rowlock-expirer")

    async def oldest_seconds() -> float:
        async with transaction(engine) as connection:
            return (await observations.server(connection)).write_seconds

    stranger = await asyncpg.connect(postgres.url())
    await stranger.execute("begin; create table left_open ()")
    assert await oldest_seconds() == 0
    await sql.execute(f"grant pg_monitor to {urlsplit(as_ordinary.database_url.get_secret_value()).username}")
    assert await oldest_seconds() > 0
    await stranger.close()
    await engine.dispose()
