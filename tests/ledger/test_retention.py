"""The keeper deletes reservations that ended unpaid long ago, and nothing that is paid, held, young or still named."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from uuid import UUID

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import Postgres
from expirer.loops import keeper
from service.database import Connection
from service.events.log import read_numbered
from service.ledger.cooldown import first_id
from service.ledger.retention import DAY_SECONDS, FIRST_ID, Deleted, delete_ended
from service.reservation import State
from service.settings import Settings
from tests.conftest import EMPTY_TABLES
from tests.stage.audits import do_round
from tests.stage.factories import Account, OnSale, book, make_customer, make_session, release
from tests.stage.forcing import locked
from tests.stage.holdings import number_all

pytestmark = pytest.mark.oldest_postgresql

KEEP_DAYS = 400
YOUNG, OLD = KEEP_DAYS - 1, KEEP_DAYS + 1
UNPAID = (State.EXPIRED, State.CANCELLED)
INSERT = """
insert into reservations (id, customer_id, session_id, seat_ids, state, total, currency, created_at, expires_at,
    settled_at, request_fingerprint, reply)
select id, $2, $3, array[$4::bigint], $5, 1250, 'EUR', made.at, made.at + interval '30 s',
    case when $5 <> 'HELD' then clock_timestamp() - $6::interval end, '', ''
from unnest($1::uuid[]) as id
cross join (select clock_timestamp() - $7::interval as at) as made
"""

INSERT_PAYMENT = "insert into payments (reservation_id, amount, currency, paid_at) values ($1, 1250, 'EUR', now())"


class Past:
    """A customer's reservations of former days, in one session."""

    def __init__(self, sql: Connection, customer: Account, session: OnSale) -> None:
        self.sql, self.customer, self.session = sql, customer, session
        self.made = 0

    async def add(
        self, state: State, days: float, count: int = 1, *, made_days: float | None = None, seat: int = 0
    ) -> list[UUID]:
        """Reservations that ended in the state so many days ago, and were made `made_days` or as many days ago."""
        made_days = days if made_days is None else made_days
        first = first_id(time.time() - made_days * DAY_SECONDS).int + self.made
        self.made += count
        ids = [UUID(int=first + n) for n in range(count)]
        ages = [timedelta(days=age) for age in (days, made_days)]
        seat_id = self.session.seat_ids[seat]
        await self.sql.execute(INSERT, ids, self.customer.id, self.session.id, seat_id, state.value, *ages)
        return ids

    async def left(self) -> set[UUID]:
        """The reservations that are still there."""
        return {row["id"] for row in await self.sql.fetch("select id from reservations")}


@pytest.fixture
async def past(sql: Connection, settings: Settings) -> AsyncIterator[Past]:
    """None yet. What a test makes breaks rules, as it has no events, and is gone after it."""
    yield Past(sql, await make_customer(sql, settings), await make_session(sql, settings))
    await sql.execute(EMPTY_TABLES)


async def delete(past: Past, after: UUID = FIRST_ID, batch_max: int = 1_000) -> Deleted:
    """The result of one slice."""
    return await delete_ended(past.sql, after, KEEP_DAYS, batch_max)


async def test_only_old_unpaid_reservations_are_deleted(engine: AsyncEngine, settings: Settings, past: Past) -> None:
    made = {(state, days): (await past.add(state, days))[0] for state in State for days in (YOUNG, OLD)}
    await keeper.step(engine, settings)
    gone = {key for key, id_ in made.items() if id_ not in await past.left()}
    assert gone == {(state, OLD) for state in UNPAID}


async def test_the_setting_says_how_long_they_are_kept(engine: AsyncEngine, settings: Settings, past: Past) -> None:
    await past.add(State.EXPIRED, 3)
    kept = set(await past.add(State.EXPIRED, 1))
    await keeper.step(engine, settings.model_copy(update={"reservations_keep_days": 2}))
    assert await past.left() == kept


async def test_their_age_counts_from_their_end(past: Past) -> None:
    kept = set(await past.add(State.EXPIRED, YOUNG, made_days=OLD))
    assert (await delete(past)).count == 0
    assert await past.left() == kept


async def test_what_a_payment_or_a_seat_names_is_kept(past: Past, sql: Connection) -> None:
    (paid,), (seated,), _ = [await past.add(State.EXPIRED, OLD, seat=seat) for seat in range(3)]
    await sql.execute(INSERT_PAYMENT, paid)
    seat_id = past.session.seat_ids[1]
    await sql.execute("update seats set state = 'HELD', reservation_id = $1 where id = $2", seated, seat_id)
    assert (await delete(past)).count == 1
    assert await past.left() == {paid, seated}


async def test_what_is_locked_is_skipped(past: Past, postgres: Postgres) -> None:
    ids = await past.add(State.CANCELLED, OLD, 3)
    async with locked(postgres, "reservations", ids[1]), asyncio.timeout(10):
        assert (await delete(past)).count == 2
    assert await past.left() == {ids[1]}


async def test_a_slice_is_bounded_and_the_walk_passes_paid_ones(past: Past) -> None:
    kept = await past.add(State.CONFIRMED, OLD + 1, 4)
    await past.add(State.EXPIRED, OLD, 4)
    found, after = [], FIRST_ID
    for _ in range(3):
        slice_ = await delete(past, after, 3)
        found.append(slice_.count)
        after = slice_.last or FIRST_ID
    assert after == FIRST_ID
    assert found == [0, 2, 2]
    assert await past.left() == set(kept)


async def test_the_walk_ends_before_young_reservations(past: Past) -> None:
    await past.add(State.EXPIRED, YOUNG, 5)
    assert await delete(past, batch_max=3) == Deleted(0, None)


async def test_keeper_pauses_between_slices_and_rests_after(
    engine: AsyncEngine, settings: Settings, past: Past
) -> None:
    await past.add(State.EXPIRED, OLD, 1_500)
    walk = keeper.Walk()

    async def step_at(seconds: float) -> tuple[float, int]:
        wait = await keeper.step(engine, settings, walk, lambda: seconds)
        return wait, len(await past.left())

    assert await step_at(0) == (keeper.SLICE_PAUSE_SECONDS, 500)
    assert await step_at(1) == (keeper.INTERVAL_SECONDS, 0)
    await past.add(State.EXPIRED, OLD)
    assert await step_at(keeper.WALK_INTERVAL_SECONDS) == (keeper.INTERVAL_SECONDS, 1)
    assert await step_at(keeper.WALK_INTERVAL_SECONDS + 1) == (keeper.INTERVAL_SECONDS, 0)


async def released(client: httpx.AsyncClient, past: Past) -> UUID:
    """A hold with a key, which was made and released over HTTP, and has been deleted since."""
    seat_id = past.session.seat_ids[0]
    id_ = UUID((await book(client, past.customer, seat_id, key="key")).json()["reservationId"])
    assert (await release(client, past.customer, str(id_))).status_code == 200
    await age(past.sql, [id_])
    assert (await delete(past)).count == 1
    return id_


async def age(sql: Connection, ids: Sequence[UUID]) -> None:
    """Gives the reservations an old id and end; the events, which are not that old, name the old ids then too."""
    for id_ in ids:
        old = UUID(int=first_id(time.time() - OLD * DAY_SECONDS).int + id_.int % 2**64)
        await sql.execute("update events set reservation_id = $2 where reservation_id = $1", id_, old)
        await sql.execute(
            "update reservations set id = $2, settled_at = settled_at - $3::interval where id = $1",
            id_,
            old,
            timedelta(days=OLD),
        )


async def test_readers_do_without_a_deleted_reservation(
    client: httpx.AsyncClient, engine: AsyncEngine, sql: Connection, settings: Settings, past: Past
) -> None:
    id_ = await released(client, past)
    await number_all(engine, settings)
    assert [event.expires_at for event in await read_numbered(sql, 0, 10)] == [None, None, None]
    tally = await do_round(engine, settings, rows=2)
    assert (tally.violations, tally.unlooked) == ({}, {})
    customer = past.customer.headers
    page = await client.get("/customer/list-history?state=ALL", headers=customer)
    assert page.json() == {"reservations": [], "next": None}
    assert (await client.get(f"/customer/reservation/{id_}", headers=customer)).status_code == 404
    assert (await release(client, past.customer, str(id_))).status_code == 404


async def test_the_key_of_a_deleted_hold_is_free_again(client: httpx.AsyncClient, past: Past) -> None:
    await released(client, past)
    again = await book(client, past.customer, past.session.seat_ids[1], key="key")
    assert (again.status_code, "Idempotency-Replayed" in again.headers) == (201, False)
