"""A column gets another type while the service sells: statements that were prepared before fail, and are repeated."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from itertools import cycle

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import Postgres
from service.database import Connection, snapshot, transaction
from service.errors import Busy, BusyReason
from service.ledger.claims import Held
from service.ledger.settling import Settled
from service.reservation import State
from service.settings import Settings
from tests.conftest import serving
from tests.stage.factories import book, hold_of, make_customers, make_session, pay, settle_of
from tests.stage.forcing import make_box_office, patient_settings
from tests.stage.metering import moved
from tests.stage.waiting import until

CHANGE = "alter table seats alter column placement type {}"
TYPES = ("varchar(64)", "text")
ROUNDS, REQUESTS = 10, 3
"""Of each customer: a round is a hold, its payment and a history."""


@pytest.fixture
async def settings(postgres: Postgres, sql: Connection) -> AsyncIterator[Settings]:
    """No request times out while a table is altered. At the end the column has its type again."""
    yield patient_settings(postgres)
    await sql.execute(CHANGE.format("text"))


async def test_every_request_is_answered_while_a_column_is_altered(sql: Connection, settings: Settings) -> None:
    customers = await make_customers(sql, settings, 8)
    seats = (await make_session(sql, settings, 8 * ROUNDS)).seat_ids
    statuses: list[list[int]] = [[] for _ in customers]

    async def buy(client: httpx.AsyncClient, n: int) -> None:
        for seat_id in seats[n :: len(customers)][:ROUNDS]:
            held = await book(client, customers[n], seat_id)
            paid = await pay(client, customers[n], held.json()["reservationId"])
            listed = await client.get("/customer/list-history", headers=customers[n].headers)
            statuses[n] += [answer.status_code for answer in (held, paid, listed)]

    async def alter() -> None:
        for type_ in cycle(TYPES):
            before = list(map(len, statuses))
            if min(before) == ROUNDS * REQUESTS:
                return
            await sql.execute(CHANGE.format(type_))
            # A request is tried twice, so none may meet two changes.
            await until(partial(all_went_on, before), "the end of all that met the change")

    async def all_went_on(before: list[int]) -> bool:
        return all(len(own) > count or count == ROUNDS * REQUESTS for own, count in zip(statuses, before, strict=True))

    async with serving(settings) as client:
        altering = asyncio.create_task(alter())
        await asyncio.gather(*(buy(client, n) for n in range(len(customers))))
        await altering
    assert statuses == [[201, 200, 200] * ROUNDS] * len(customers)


async def test_lists_are_tried_once_more_on_any_connection(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    customers = await make_customers(sql, settings, 4)
    seats = (await make_session(sql, settings)).seat_ids
    box_office = make_box_office(engine)

    async def hold_and_pay(taken: Sequence[int]) -> None:
        holds = [hold_of(who, seat_id) for who, seat_id in zip(customers, taken, strict=True)]
        held = await asyncio.gather(*map(box_office.hold, holds))
        assert {type(answer) for answer in held} == {Held}
        payments = [
            settle_of(hold.reservation_id, State.CONFIRMED, who) for hold, who in zip(holds, customers, strict=True)
        ]
        settled = await asyncio.gather(*map(box_office.settle, payments))
        assert {type(answer) for answer in settled} == {Settled}

    await hold_and_pay(seats[:4])
    await sql.execute(CHANGE.format("varchar(64)"))
    with moved() as grown:
        await hold_and_pay(seats[4:8])
    assert 1 <= grown["retries_total schema"] <= 2
    with moved() as grown:
        await hold_and_pay(seats[8:12])
    assert "retries_total schema" not in grown


async def test_one_failure_renews_the_statements_of_every_connection(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    await make_session(sql, settings)
    query = "select placement from seats"

    async def read_on_two() -> list[BusyReason | None]:
        """Both connections read in a transaction at the same time."""
        both = asyncio.Barrier(2)
        return await asyncio.gather(*(read(both) for _ in range(2)))

    async def read(both: asyncio.Barrier) -> BusyReason | None:
        try:
            async with transaction(engine) as connection:
                await both.wait()
                await connection.fetch(query)
        except Busy as error:
            return error.reason
        return None

    assert await read_on_two() == [None, None]
    await sql.execute(CHANGE.format("varchar(64)"))
    with pytest.raises(Busy) as refused:
        async with transaction(engine) as connection:
            await connection.fetch(query)
    assert refused.value.reason is BusyReason.SCHEMA
    assert await read_on_two() == [None, None]
    async with snapshot(engine) as connection:
        assert await connection.fetch(query)
