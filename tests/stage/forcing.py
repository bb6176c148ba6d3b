"""Forces the order of concurrent requests: locks rows, waits for clocks, counts deadlocks."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from dev.postgres import Postgres
from service.api.customer import render_hold
from service.database import Connection
from service.ledger import holding
from service.ledger.booking import BoxOffice
from service.ledger.claims import Held, HoldRequest, Rules
from service.ledger.limits import Limits
from service.reservation import State
from service.settings import Settings
from tests.stage.factories import Account, hold_of, make_settings, settle_of
from tests.stage.waiting import until

PATIENT = {
    "lock_timeout_ms": 15_000, "list_lock_timeout_ms": 15_000, "statement_timeout_ms": 15_000, "pool_wait_ms": 15_000,
    "write_wait_ms": 15_000,
}  # fmt: skip
"""Settings for a test whose subject waits for as long as the test wants."""

LOCK_ROWS = {
    "accounts": "select id from accounts where id = any($1::uuid[]) for no key update",
    "reservations": "select id from reservations where id = any($1::uuid[]) for no key update",
    "seats": "select id from seats where id = any($1::bigint[]) for no key update",
}


def patient_settings(postgres: Postgres, **changes: Any) -> Settings:
    """Settings under which no request times out while the test keeps a lock."""
    return make_settings(postgres.url(), **(PATIENT | changes))


LIMITS = Limits(
    writes_max=1_000, session_writes_max=1_000, wait_ms=15_000, outcome_wait_ms=1_000, list_lock_timeout_ms=15_000,
    alone_max=8,
)  # fmt: skip
"""Of a box office whose lists wait for as long as the test wants."""


def make_box_office(
    engine: AsyncEngine, hold_seconds: int = 30, seats_per_customer_max: int = 10, limits: Limits = LIMITS
) -> BoxOffice:
    """The two writes over this pool."""
    return BoxOffice(engine, Rules(hold_seconds, seats_per_customer_max), render_hold, limits)


@asynccontextmanager
async def locked(postgres: Postgres, table: str, *ids: UUID | int) -> AsyncIterator[Connection]:
    """Another transaction locks these rows during the block and changes nothing."""
    connection = await asyncpg.connect(postgres.url())
    try:
        await connection.execute("begin")
        assert len(await connection.fetch(LOCK_ROWS[table], ids)) == len(ids)
        yield connection
    finally:
        await connection.close()


async def unlocked(sql: Connection, table: str, *ids: UUID | int) -> list[UUID | int]:
    """The rows that no transaction has locked, in the given order."""
    free = {row["id"] for row in await sql.fetch(f"{LOCK_ROWS[table]} skip locked", ids)}
    return [id_ for id_ in ids if id_ in free]


async def give(connection: Connection, customer: Account, *seat_ids: int, hold_seconds: int = 30) -> UUID:
    """A reservation of the customer's, held through the ledger in a transaction of its own; its id."""
    (id_,) = await give_all(connection, [hold_of(customer, *seat_ids)], hold_seconds)
    return id_


async def give_all(connection: Connection, requests: Sequence[HoldRequest], hold_seconds: int = 30) -> list[UUID]:
    """All of these holds, whatever the customers' limit is; their ids."""
    async with connection.transaction():
        answers = await holding.hold(connection, requests, Rules(hold_seconds, 1_000), render_hold)
    assert all(isinstance(answer, Held) for answer in answers), answers
    return [request.reservation_id for request in requests]


async def hold_one(box_office: BoxOffice, request: HoldRequest) -> Held | Exception:
    """The answer to a list of one, in a transaction of its own."""
    (answer,) = await box_office.hold_all([request])
    return answer


async def settle_one(box_office: BoxOffice, reservation_id: UUID, target: State, customer: Account) -> Any:
    """The answer to a list of one, in a transaction of its own."""
    (answer,) = await box_office.settle_all([settle_of(reservation_id, target, customer)])
    return answer


async def state_of(sql: Connection, reservation_id: UUID) -> str:
    """The reservation's state as it is committed."""
    return str(await sql.fetchval("select state from reservations where id = $1", reservation_id))


async def until_overdue(sql: Connection, reservation_id: UUID) -> None:
    """Returns when the deadline has passed by PostgreSQL's clock."""
    query = "select expires_at < clock_timestamp() from reservations where id = $1"

    async def is_overdue() -> bool:
        return bool(await sql.fetchval(query, reservation_id))

    await until(is_overdue, "the deadline")


async def count_deadlocks(sql: Connection) -> int:
    """`deadlocks` of the database. Other connections are ended first: until then theirs may be missing."""
    others = (
        "from pg_stat_activity where datname = current_database() and backend_type = 'client backend'"
        " and pid <> pg_backend_pid()"
    )
    await sql.fetch(f"select pg_terminate_backend(pid) {others}")

    async def alone() -> bool:
        return not await sql.fetchval(f"select count(*) {others}")

    await until(alone, "the end of the other connections")
    await sql.execute("select pg_stat_force_next_flush()")
    return int(await sql.fetchval("select deadlocks from pg_stat_database where datname = current_database()"))


def keys(count: int) -> list[str]:
    """Unused idempotency keys."""
    return [str(uuid7()) for _ in range(count)]
