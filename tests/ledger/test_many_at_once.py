"""Lists of many requests: each gets its own answer by the rules of one, and two lists at once never deadlock."""

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import Postgres
from expirer.loops import sweep
from service.api.customer import render_hold
from service.database import Connection
from service.errors import (
    HoldExpired,
    IdempotencyKeyReused,
    NotFound,
    Refusal,
    ReservationCancelled,
    ReservationPaid,
    SeatLimitReached,
    SeatsTaken,
    SeatsUnknown,
)
from service.ledger import holding
from service.ledger.booking import BoxOffice
from service.ledger.claims import Held, HoldRequest, Rules
from service.ledger.settling import Settled
from service.reservation import State
from service.settings import Settings
from tests.stage.factories import Account, hold_of, make_customers, make_overdue, make_session, settle_of
from tests.stage.forcing import count_deadlocks, give_all, keys, locked, make_box_office, patient_settings
from tests.stage.waiting import until_lock_waits

pytestmark = pytest.mark.oldest_postgresql


@pytest.fixture
def settings(postgres: Postgres, sql: Connection) -> Settings:  # noqa: ARG001 - the database is emptied first
    """No request times out while the test keeps a lock."""
    return patient_settings(postgres)


@pytest.fixture
def box_office(engine: AsyncEngine) -> BoxOffice:
    """The two writes."""
    return make_box_office(engine)


async def hold_all(box_office: BoxOffice, *requests: HoldRequest) -> list[Any]:
    """The answers to one list."""
    return list(await box_office.hold_all(requests))


async def hold_in_one(connection: Connection, *requests: HoldRequest) -> list[Any]:
    """The answers of one transaction, without a retry."""
    async with connection.transaction():
        return list(await holding.hold(connection, requests, Rules(30, 10), render_hold))


def names(answers: Sequence[object]) -> list[str]:
    """The types of the answers."""
    return [type(answer).__name__ for answer in answers]


async def test_in_a_list_each_request_gets_its_own_answer(sql: Connection, settings: Settings) -> None:
    a, b = await make_customers(sql, settings, 2)
    seats = (await make_session(sql, settings)).seat_ids
    stranger = Account(UUID(int=1), "")
    requests = [hold_of(a, *seats[:2]), hold_of(b, 10**12), hold_of(stranger, seats[5]), hold_of(b, seats[3])]
    answers = await hold_in_one(sql, *requests)
    assert names(answers) == ["Held", "SeatsUnknown", "Unauthenticated", "Held"]
    assert isinstance(answers[1], SeatsUnknown)
    assert answers[1].seat_ids == (10**12,)
    assert await sql.fetchval("select count(*) from reservations") == 2


async def test_in_a_list_two_requests_of_one_customer_share_the_limit(sql: Connection, settings: Settings) -> None:
    (customer,) = await make_customers(sql, settings, 1)
    seats = (await make_session(sql, settings)).seat_ids
    answers = await hold_in_one(
        sql, hold_of(customer, *seats[:6]), hold_of(customer, *seats[6:11]), hold_of(customer, *seats[6:10])
    )
    assert names(answers) == ["Held", "SeatLimitReached", "Held"]
    assert isinstance(answers[1], SeatLimitReached)
    assert answers[1].seats_claimed == 6


async def test_in_a_list_two_requests_for_one_seat_give_one_winner(sql: Connection, settings: Settings) -> None:
    a, b = await make_customers(sql, settings, 2)
    seats = (await make_session(sql, settings)).seat_ids
    first, second = await hold_in_one(sql, hold_of(a, *seats[:2]), hold_of(b, *seats[1:3]))
    assert isinstance(first, Held)
    assert isinstance(second, SeatsTaken)
    assert second.seat_ids == (seats[1],)


async def test_members_with_one_key_are_twins_only_for_the_same_seats(sql: Connection, settings: Settings) -> None:
    (customer,) = await make_customers(sql, settings, 1)
    seats = (await make_session(sql, settings)).seat_ids
    (key,) = keys(1)
    asked = [hold_of(customer, *wanted, key=key) for wanted in (seats[:2], seats[:2], seats[2:3])]
    first, twin, other = await hold_in_one(sql, *asked)
    assert (first.replayed, twin.replayed, twin.reply) == (False, True, first.reply)
    assert isinstance(other, IdempotencyKeyReused)
    assert await sql.fetchval("select count(*) from reservations") == 1


async def test_later_member_sees_what_an_earlier_one_settled(
    box_office: BoxOffice, sql: Connection, settings: Settings
) -> None:
    a, b = await make_customers(sql, settings, 2)
    seats = (await make_session(sql, settings)).seat_ids
    paid, released, late = await give_all(sql, [hold_of(a, seat_id) for seat_id in seats[:3]])
    await make_overdue(sql, late)
    asked = [(paid, State.CONFIRMED, b), (paid, State.CONFIRMED, a), (paid, State.CANCELLED, a)]
    asked += [(released, State.CANCELLED, a), (released, State.CONFIRMED, a), (paid, State.CONFIRMED, a)]
    asked += [(late, State.CONFIRMED, a)]
    answers: list[Any] = await box_office.settle_all([settle_of(*one) for one in asked])
    kinds = [NotFound, Settled, ReservationPaid, Settled, ReservationCancelled, Settled, HoldExpired]
    assert [type(answer) for answer in answers] == kinds
    assert [answer.changed for answer in answers if isinstance(answer, Settled)] == [True, True, False]


async def test_lists_of_holds_in_opposite_orders_do_not_deadlock(
    box_office: BoxOffice, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    before = await count_deadlocks(sql)
    customers = await make_customers(sql, settings, 6)
    seats = (await make_session(sql, settings)).seat_ids[:6]
    # Locking request by request would begin at both ends and deadlock in the middle.
    forwards, backwards = list(zip(customers, seats, strict=True)), list(zip(customers, seats, strict=True))[::-1]
    async with locked(postgres, "seats", seats[0], seats[-1]):
        both = [
            asyncio.create_task(hold_all(box_office, *(hold_of(customer, seat_id) for customer, seat_id in pairs)))
            for pairs in (forwards, backwards)
        ]
        await until_lock_waits(sql, 2)
    first, second = await asyncio.gather(*both)
    assert sorted([set(names(first)), set(names(second))], key=str) == [{"Held"}, {"SeatsTaken"}]
    assert await count_deadlocks(sql) == before


async def test_lists_of_payments_and_releases_do_not_deadlock(
    box_office: BoxOffice, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    before = await count_deadlocks(sql)
    customers = await make_customers(sql, settings, 6)
    seats = (await make_session(sql, settings)).seat_ids[:6]
    # The reservations' order is not that of their seats.
    held = await give_all(sql, [hold_of(*pair) for pair in zip(customers, reversed(seats), strict=True)])
    async with locked(postgres, "seats", seats[0], seats[-1]):
        paying = asyncio.create_task(box_office.settle_all([settle_of(id_, State.CONFIRMED) for id_ in held]))
        await until_lock_waits(sql)
        releasing = asyncio.create_task(box_office.settle_all([settle_of(id_, State.CANCELLED) for id_ in held[::-1]]))
        await until_lock_waits(sql, 2)
    assert {type(answer) for answer in await paying} == {Settled}
    assert {type(answer) for answer in await releasing} == {ReservationPaid}
    assert await count_deadlocks(sql) == before


async def test_lists_of_holds_and_releases_do_not_deadlock(
    box_office: BoxOffice, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    before = await count_deadlocks(sql)
    *owners, buyer = await make_customers(sql, settings, 4)
    seats = (await make_session(sql, settings)).seat_ids[:6]
    held = await give_all(sql, [hold_of(owner, seats[n], seats[n + 3]) for n, owner in enumerate(owners)][::-1])
    async with locked(postgres, "seats", seats[2]):
        releasing = asyncio.create_task(box_office.settle_all([settle_of(id_, State.CANCELLED) for id_ in held]))
        await until_lock_waits(sql)
        buying = asyncio.create_task(hold_all(box_office, *(hold_of(buyer, seat_id) for seat_id in reversed(seats))))
        await until_lock_waits(sql, 2)
    assert {type(answer) for answer in await releasing} == {Settled}
    assert set(names(await buying)) == {"Held"}
    assert await count_deadlocks(sql) == before


STORM_SECONDS, LISTS_AT_ONCE, LIST_MAX = 3, 8, 8
EXPECTED = (Held, Settled, Refusal)


async def test_storm_of_overlapping_lists_has_no_deadlock(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    before = await count_deadlocks(sql)
    customers = await make_customers(sql, settings, 12)
    seats = (await make_session(sql, settings, 40)).seat_ids
    box_office = make_box_office(engine, hold_seconds=1)
    end = time.monotonic() + STORM_SECONDS
    held: list[UUID] = []

    async def buy_and_settle(dice: random.Random) -> list[object]:
        answers: list[object] = []
        while time.monotonic() < end:
            asked = [hold_of(dice.choice(customers), *dice.sample(seats, 3)) for _ in range(dice.randint(2, LIST_MAX))]
            found = await hold_all(box_office, *asked)
            held.extend(one.reservation_id for one, answer in zip(asked, found, strict=True) if type(answer) is Held)
            wanted = dice.sample(held, min(len(held), LIST_MAX))
            targets = [dice.choice([State.CONFIRMED, State.CANCELLED, State.CANCELLED]) for _ in wanted]
            answers += found + await box_office.settle_all(list(map(settle_of, wanted, targets)))
        return answers

    async def sweep_on() -> list[object]:
        while time.monotonic() < end:
            await sweep.step(engine, settings)
            await asyncio.sleep(0.01)
        return []

    storm = [buy_and_settle(random.Random(n)) for n in range(LISTS_AT_ONCE)]
    answers = [answer for part in await asyncio.gather(*storm, sweep_on(), sweep_on()) for answer in part]
    assert [answer for answer in answers if not isinstance(answer, EXPECTED)] == []
    assert {Held, Settled, SeatsTaken} <= set(map(type, answers))
    assert len(answers) > 500
    assert await count_deadlocks(sql) == before
