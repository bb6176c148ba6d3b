"""Gathered holds and payments on PostgreSQL: each gets its own answer, and a lock delays only those that want it."""

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import Postgres
from service.database import Connection
from service.errors import HoldExpired, NotFound, SeatsTaken, SessionBusy
from service.ledger.claims import Held
from service.ledger.gathering import LANES
from service.ledger.limits import limits_of
from service.ledger.settling import Settled
from service.reservation import State
from service.settings import Settings
from tests.stage.factories import hold_of, make_customers, make_overdue, make_session, settle_of
from tests.stage.forcing import LIMITS, give, locked, make_box_office, patient_settings, state_of
from tests.stage.metering import moved
from tests.stage.waiting import until_lock_waits

pytestmark = pytest.mark.oldest_postgresql


@pytest.fixture
def settings(postgres: Postgres, sql: Connection) -> Settings:  # noqa: ARG001 - the database is emptied first
    """No request times out while the test keeps a lock."""
    return patient_settings(postgres)


async def test_locked_seat_delays_its_neighbours_only_briefly(
    engine: AsyncEngine, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customers = await make_customers(sql, settings, 12)
    seats = (await make_session(sql, settings)).seat_ids
    box_office = make_box_office(engine, limits=replace(LIMITS, list_lock_timeout_ms=50, alone_max=2))
    async with locked(postgres, "seats", seats[0]):
        stuck = asyncio.create_task(box_office.hold(hold_of(customers[0], seats[0])))
        await until_lock_waits(sql)
        asked = [hold_of(who, seat_id) for who, seat_id in zip(customers[1:], seats[1:], strict=False)]
        answers = await asyncio.wait_for(asyncio.gather(*map(box_office.hold, asked)), 10)
        assert {type(answer) for answer in answers} == {Held}
        assert not stuck.done()
    assert isinstance(await stuck, Held)


async def test_many_requests_for_a_locked_seat_delay_no_neighbour(
    engine: AsyncEngine, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customers = await make_customers(sql, settings, 40)
    seats = (await make_session(sql, settings)).seat_ids
    box_office = make_box_office(engine, limits=replace(LIMITS, list_lock_timeout_ms=50, alone_max=1))
    async with locked(postgres, "seats", seats[0]):
        stuck = [asyncio.create_task(box_office.hold(hold_of(who, seats[0]))) for who in customers[:30]]
        asked = [hold_of(who, seat_id) for who, seat_id in zip(customers[30:], seats[1:], strict=False)]
        answers = await asyncio.wait_for(asyncio.gather(*map(box_office.hold, asked)), 10)
        assert {type(answer) for answer in answers} == {Held}
        assert not any(task.done() for task in stuck)
    ended = await asyncio.gather(*stuck, return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in ended) == ["Held"] + [SeatsTaken.__name__] * 29


async def test_overdue_holds_of_a_list_are_ended_together(
    engine: AsyncEngine, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customers = await make_customers(sql, settings, 20)
    seats = (await make_session(sql, settings)).seat_ids
    await make_overdue(sql, *[await give(sql, customers[-1], seat_id) for seat_id in seats[1:9]])
    box_office = make_box_office(engine)
    with moved() as grown:
        async with locked(postgres, "seats", seats[0]):
            lanes = []
            for n, who in enumerate(customers[:LANES], 1):
                lanes.append(asyncio.create_task(box_office.hold(hold_of(who, seats[0]))))
                await until_lock_waits(sql, n)
            asked = [hold_of(who, seat_id) for who, seat_id in zip(customers[LANES:], seats[1:9], strict=False)]
            holds = [asyncio.create_task(box_office.hold(request)) for request in asked]
            await asyncio.sleep(0)
        assert {type(answer) for answer in await asyncio.gather(*holds)} == {Held}
        await asyncio.wait(lanes)
    # The winner of the locked seat, the ended holds, and the new ones.
    assert grown["commit_duration_seconds_count"] == 3


async def test_locked_hold_delays_its_neighbours_only_briefly(
    engine: AsyncEngine, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customers = await make_customers(sql, settings, 6)
    seats = (await make_session(sql, settings)).seat_ids
    held = [await give(sql, *pair) for pair in zip(customers, seats, strict=False)]
    box_office = make_box_office(engine, limits=replace(LIMITS, list_lock_timeout_ms=50, alone_max=2))
    async with locked(postgres, "reservations", held[0]):
        stuck = asyncio.create_task(box_office.settle(settle_of(held[0], State.CONFIRMED)))
        await until_lock_waits(sql)
        paying = [box_office.settle(settle_of(id_, State.CONFIRMED)) for id_ in held[1:]]
        answers = await asyncio.wait_for(asyncio.gather(*paying), 10)
        assert {type(answer) for answer in answers} == {Settled}
        assert not stuck.done()
    assert isinstance(await stuck, Settled)


async def test_busy_session_is_refused_while_another_one_sells(
    engine: AsyncEngine, postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customers = await make_customers(sql, settings, 5)
    busy, other = [(await make_session(sql, settings)).seat_ids for _ in range(2)]
    box_office = make_box_office(engine, limits=replace(LIMITS, session_writes_max=1))
    for seats in (busy, other):
        await box_office.hold(hold_of(customers[0], seats[0]))
    async with locked(postgres, "seats", busy[0]):
        waiting = asyncio.create_task(box_office.hold(hold_of(customers[1], busy[0])))
        await until_lock_waits(sql)
        with pytest.raises(SessionBusy):
            await box_office.hold(hold_of(customers[2], busy[0]))
        with pytest.raises(SeatsTaken):
            await box_office.hold(hold_of(customers[3], other[0]))
    with pytest.raises(SeatsTaken):
        await waiting


async def test_hot_seat_has_one_winner_and_few_transactions(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    customers = await make_customers(sql, settings, 100)
    seats = (await make_session(sql, settings)).seat_ids
    box_office = make_box_office(engine)
    asked = [box_office.hold(hold_of(who, seats[0])) for who in customers]
    with moved() as grown:
        answers = await asyncio.gather(*asked, return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["Held"] + [SeatsTaken.__name__] * 99
    assert grown["list_members_count hold"] <= LANES + 1
    assert await sql.fetchval("select count(*) from events where reservation_id is not null") == 1


async def test_gathered_hold_of_an_overdue_seat_ends_the_old_hold(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    customers = await make_customers(sql, settings, 4)
    seats = (await make_session(sql, settings)).seat_ids
    overdue = await give(sql, customers[0], seats[0])
    await make_overdue(sql, overdue)
    box_office = make_box_office(engine)
    asked = [box_office.hold(hold_of(who, seats[n])) for n, who in enumerate(customers[1:])]
    assert {type(answer) for answer in await asyncio.gather(*asked)} == {Held}
    assert await state_of(sql, overdue) == "EXPIRED"


async def test_gathered_payments_get_answers_of_their_own(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    owner, stranger = await make_customers(sql, settings, 2)
    seats = (await make_session(sql, settings)).seat_ids
    held, late = await give(sql, owner, seats[0]), await give(sql, owner, seats[1])
    await make_overdue(sql, late)
    box_office = make_box_office(engine)
    asked = [settle_of(held, State.CONFIRMED, owner), settle_of(held, State.CONFIRMED, stranger)]
    asked += [settle_of(held, State.CONFIRMED, owner), settle_of(late, State.CONFIRMED, owner)]
    answers = await asyncio.gather(*map(box_office.settle, asked), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Settled, NotFound, Settled, HoldExpired]


async def test_lists_leave_connections_for_reads(settings: Settings) -> None:
    for size in (10, 20, 100):
        outside = limits_of(settings.model_copy(update={"pool_size": size})).alone_max
        of_each_kind = LANES + 2 * outside
        assert 2 * of_each_kind < size


@pytest.mark.parametrize(("own", "of_lists", "expected"), [(2_000, 100, 100), (50, 100, 50)])
def test_list_waits_no_longer_than_a_single_request(settings: Settings, own: int, of_lists: int, expected: int) -> None:
    changed = settings.model_copy(update={"lock_timeout_ms": own, "list_lock_timeout_ms": of_lists})
    assert limits_of(changed).list_lock_timeout_ms == expected
