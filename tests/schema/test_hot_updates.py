"""A change of a seat's state stays on the seat's page and touches no index: a heap-only (HOT) update."""

from collections.abc import AsyncIterator, Sequence

import pytest

from service.api.customer import render_hold
from service.database import Connection
from service.ledger import holding, settling
from service.ledger.claims import Held, Rules
from service.reservation import State
from service.settings import Settings
from tests.stage.factories import Account, hold_of, make_customer, make_session, settle_of
from tests.stage.waiting import until

pytestmark = pytest.mark.oldest_postgresql

SEATS, SEATS_PER_HOLD, ROUNDS = 10_000, 500, 5
CHANGES_MIN = 100_000
HOT_PERCENT_MIN = 95

COUNT_UPDATES = """
select n_tup_upd as updates, n_tup_hot_upd as hot_updates
from pg_stat_user_tables
where relname = 'seats'
"""
COUNT_AUTOVACUUM = "select count(*) from pg_stat_activity where backend_type like 'autovacuum %'"


@pytest.fixture
async def without_autovacuum(sql: Connection) -> AsyncIterator[None]:
    """Its ANALYZE holds a snapshot, and while that lives no page gets rid of the rows that were replaced since."""

    async def is_off() -> bool:
        return bool(await sql.fetchval(COUNT_AUTOVACUUM) == 0)

    await sql.execute("alter system set autovacuum = off")
    try:
        await sql.execute("select pg_reload_conf()")
        await until(is_off, "the end of autovacuum's launcher and workers")
        yield
    finally:
        await sql.execute("alter system reset autovacuum")
        await sql.execute("select pg_reload_conf()")


@pytest.mark.usefixtures("without_autovacuum")
async def test_nearly_all_seat_updates_are_hot(sql: Connection, settings: Settings) -> None:
    customer = await make_customer(sql, settings)
    seat_ids = (await make_session(sql, settings, SEATS)).seat_ids
    before = await count_updates(sql)
    for _ in range(ROUNDS):
        await hold_and_release(sql, customer, seat_ids)
    after = await count_updates(sql)
    updates, hot_updates = (after[n] - before[n] for n in (0, 1))
    assert updates >= CHANGES_MIN
    assert hot_updates >= updates * HOT_PERCENT_MIN / 100


async def hold_and_release(sql: Connection, customer: Account, seat_ids: Sequence[int]) -> None:
    """Two changes of each seat, through the ledger, in a transaction for all holds and one for all releases."""
    requests = [
        hold_of(customer, *seat_ids[first : first + SEATS_PER_HOLD]) for first in range(0, SEATS, SEATS_PER_HOLD)
    ]
    async with sql.transaction():
        answers = await holding.hold(sql, requests, Rules(30, SEATS), render_hold)
    assert all(isinstance(answer, Held) for answer in answers)
    async with sql.transaction():
        settled = await settling.settle(sql, [settle_of(hold.reservation_id, State.CANCELLED) for hold in requests])
    assert all(isinstance(answer, settling.Settled) for answer in settled)


async def count_updates(sql: Connection) -> tuple[int, int]:
    """How many rows of seats were updated so far, and how many of them HOT."""
    await sql.execute("select pg_stat_force_next_flush()")
    row = await sql.fetchrow(COUNT_UPDATES)
    assert row
    return row["updates"], row["hot_updates"]
