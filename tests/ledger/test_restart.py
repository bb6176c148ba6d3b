"""PostgreSQL crashes while customers buy: nothing acknowledged is lost, and the service recovers."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest

from dev.postgres import Postgres
from service.database import Connection, create_engine
from service.errors import DatabaseAway
from service.ledger.claims import Held
from service.ledger.gathering import LANES
from service.migrate import migrate
from tests.stage.factories import Account, book, hold_of, make_customers, make_session, make_settings, pay
from tests.stage.forcing import PATIENT, hold_one, locked, make_box_office, patient_settings
from tests.stage.pools import checked_out
from tests.stage.processes import api_process
from tests.stage.servers import Servers
from tests.stage.verdict import broken_rules
from tests.stage.waiting import until, until_lock_waits

AWAY = {"urn:rowlock:problem:database-away", "urn:rowlock:problem:outcome-unknown"}
BUYERS = 12
POOL_SIZE = 4
ANSWERS = 60
"""So many holds and payments are acknowledged before the crash, and as many after it."""

LOST = """
select told.id, told.state, r.state as found
from unnest($1::uuid[], $2::text[]) as told (id, state)
left join reservations as r using (id)
where r.id is null
or (told.state = 'CONFIRMED' and r.state <> 'CONFIRMED')
"""


@pytest.fixture(scope="module")
def server(servers: Servers) -> Iterator[Postgres]:
    """A PostgreSQL of this test's own that may crash."""
    made = servers.make("restarted")
    asyncio.run(migrate(made.url()))
    yield made
    made.kill()


@asynccontextmanager
async def crashed(server: Postgres) -> AsyncIterator[None]:
    """PostgreSQL stops like in a crash, is away during the block, and starts again."""
    await asyncio.to_thread(server.kill)
    try:
        yield
    finally:
        await asyncio.to_thread(server.start)


@dataclass(slots=True)
class Told:
    """The answers to customers: the last acknowledged state of each reservation, and the count of each outcome."""

    states: dict[UUID, str] = field(default_factory=dict)
    replies: Counter[tuple[int, str | None]] = field(default_factory=Counter)

    def note(self, reply: httpx.Response) -> bool:
        """Whether the request was granted."""
        self.replies[reply.status_code, reply.json().get("type")] += 1
        if reply.is_success:
            self.states[UUID(reply.json()["reservationId"])] = reply.json()["state"]
        return reply.is_success

    @property
    def granted(self) -> int:
        """The number of granted requests."""
        return sum(count for (status, _), count in self.replies.items() if status < 300)


async def buy(client: httpx.AsyncClient, customer: Account, seat_ids: Sequence[int], told: Told) -> None:
    """Holds one seat after the other and pays for it, until cancelled."""
    while True:
        reply = await book(client, customer, random.choice(seat_ids))
        if told.note(reply):
            told.note(await pay(client, customer, reply.json()["reservationId"]))
        elif reply.status_code == 503:
            await asyncio.sleep(0.02)


@asynccontextmanager
async def buying(buyers: Sequence[asyncio.Task[None]]) -> AsyncIterator[None]:
    """They buy during the block."""
    try:
        yield
        assert not any(buyer.done() for buyer in buyers), "a buyer ended without an answer"
    finally:
        for buyer in buyers:
            buyer.cancel()
        await asyncio.gather(*buyers, return_exceptions=True)


async def until_granted(told: Told, count: int) -> None:
    """Returns when this many more requests were granted."""
    enough = told.granted + count

    async def granted() -> bool:
        return told.granted >= enough

    await until(granted, f"{count} more acknowledgements")


async def until_ready(client: httpx.AsyncClient) -> None:
    """Returns when the process is ready."""

    async def ready() -> bool:
        return (await client.get("/readyz")).status_code == 200

    await until(ready, "/readyz 200")


async def assert_away(client: httpx.AsyncClient, customer: Account, seat_id: int) -> None:
    """It answers 503 with Retry-After, and its liveness asks for no restart."""
    for reply in (await client.get("/readyz"), await book(client, customer, seat_id)):
        assert (reply.status_code, reply.json()["type"]) == (503, "urn:rowlock:problem:database-away")
        assert int(reply.headers["Retry-After"]) >= 1
    assert (await client.get("/livez")).status_code == 200


async def assert_every_lane_works(
    server: Postgres, sql: Connection, client: httpx.AsyncClient, customers: Sequence[Account], seat_id: int
) -> None:
    """As many lists of holds at once as there may be, each seen at work in PostgreSQL."""
    asked: list[asyncio.Task[httpx.Response]] = []
    async with locked(server, "seats", seat_id):
        for customer in customers[:LANES]:
            asked.append(asyncio.create_task(book(client, customer, seat_id)))
            await until_lock_waits(sql, len(asked))
    statuses = sorted([(await reply).status_code for reply in asked])
    assert statuses == [201] + [409] * (LANES - 1)


async def test_crash_of_postgresql_loses_nothing_acknowledged(
    server: Postgres,
) -> None:
    options = {"pool_size": POOL_SIZE, "seats_per_customer_max": 1_000, **PATIENT}
    told = Told()
    async with AsyncExitStack() as stack:
        sql = await asyncpg.connect(server.url())
        customers, seats = await arrange(sql, server)
        clients = [await stack.enter_async_context(client_of_a_process(server, options)) for _ in range(2)]
        pairs = enumerate(customers)
        buyers = [asyncio.create_task(buy(clients[n % 2], who, seats[2:], told)) for n, who in pairs]
        async with buying(buyers):
            await until_granted(told, ANSWERS)
            async with crashed(server):
                for client, customer, seat in zip(clients, customers, seats, strict=False):
                    await assert_away(client, customer, seat)
            for client in clients:
                await until_ready(client)
            await until_granted(told, ANSWERS)
        await sql.close()
        sql = await asyncpg.connect(server.url())
        for client, seat in zip(clients, seats, strict=False):
            await assert_every_lane_works(server, sql, client, customers, seat)
        await assert_nothing_lost(sql, told)
        await sql.close()


async def arrange(sql: Connection, server: Postgres) -> tuple[list[Account], Sequence[int]]:
    """Customers, and more seats than they can buy in time."""
    settings = make_settings(server.url())
    return await make_customers(sql, settings, BUYERS), (await make_session(sql, settings, 10_000)).seat_ids


@asynccontextmanager
async def client_of_a_process(server: Postgres, options: dict[str, Any]) -> AsyncIterator[httpx.AsyncClient]:
    """An API process over this server, and a client of it."""
    async with (
        api_process(server.url(), **options) as api,
        httpx.AsyncClient(base_url=api.url, timeout=30) as client,
    ):
        yield client


async def assert_nothing_lost(sql: Connection, told: Told) -> None:
    """Every acknowledged change is there, every rule holds, and every answer is documented."""
    assert await sql.fetch(LOST, list(told.states), list(told.states.values())) == []
    assert await broken_rules(sql) == {}
    refused = {kind for status, kind in told.replies if status == 503}
    assert refused, "customers bought while PostgreSQL was away"
    assert refused <= AWAY
    assert {status for status, _ in told.replies} <= {200, 201, 409, 503}


async def test_crash_refuses_writes_in_flight_and_frees_their_slots(server: Postgres) -> None:
    settings = patient_settings(server, pool_size=POOL_SIZE)
    engine = create_engine(settings, "rowlock-test")
    box_office = make_box_office(engine)
    sql = await asyncpg.connect(server.url())
    customers = await make_customers(sql, settings, POOL_SIZE)
    seats = (await make_session(sql, settings)).seat_ids
    requests = [hold_of(customer, seat) for customer, seat in zip(customers, seats, strict=False)]
    async with locked(server, "seats", *seats[:POOL_SIZE]):
        asked = [asyncio.create_task(hold_one(box_office, request)) for request in requests]
        await until_lock_waits(sql, POOL_SIZE)
        async with crashed(server):
            assert {type(answer) for answer in await asyncio.gather(*asked)} == {DatabaseAway}
            assert checked_out(engine) == 0
            together = await box_office.hold_all(requests)
            assert {type(answer) for answer in together} == {DatabaseAway}
    await sql.close()
    answers = await asyncio.gather(*[hold_one(box_office, request) for request in requests])
    assert {type(answer) for answer in answers} == {Held}
    assert checked_out(engine) == 0
    await engine.dispose()
