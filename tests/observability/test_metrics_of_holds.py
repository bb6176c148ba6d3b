"""The metrics that holds, payments and releases change, and those that they leave alone."""

import asyncio

import httpx

from dev.postgres import Postgres
from service.database import Connection, create_engine
from service.ledger.booking import BoxOffice
from service.ledger.claims import Held
from service.settings import Settings
from tests.conftest import serving
from tests.stage.factories import (
    book,
    hold_of,
    make_customer,
    make_customers,
    make_overdue,
    make_session,
    make_settings,
    pay,
    release,
)
from tests.stage.forcing import hold_one, locked, make_box_office, patient_settings
from tests.stage.metering import about, gauge, moved
from tests.stage.waiting import until_lock_waits

WRITE = {"commit_duration_seconds_count": 1, "pool_wait_seconds_count": 1}


def request(method: str, route: str, outcome: str, count: int = 1) -> dict[str, float]:
    """The growth by requests of one kind."""
    return {f"http_request_duration_seconds_count {method} {route} {outcome}": count}


async def test_a_hold_changes_its_own_metrics_only(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer, seats = await make_customer(sql, settings), (await make_session(sql, settings)).seat_ids
    with moved() as grown:
        assert (await book(client, customer, *seats[:2])).status_code == 201
    assert grown == request("POST", "/customer/book", "ok") | WRITE | {
        "operation_duration_seconds_count hold done": 1,
        "seats_total hold": 2,
        "lock_wait_seconds_count customers": 1,
        "lock_wait_seconds_count seats": 1,
        "list_members_count hold": 1,
        "list_duration_seconds_count hold": 1,
    }


async def test_payments_and_releases_count_once_despite_repetition(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer, seats = await make_customer(sql, settings), (await make_session(sql, settings)).seat_ids
    first, second = [(await book(client, customer, seat, key=str(seat))).json() for seat in seats[:2]]
    with moved() as grown:
        for _ in range(2):
            assert (await pay(client, customer, first["reservationId"])).is_success
            assert (await release(client, customer, second["reservationId"])).is_success
            assert (await book(client, customer, seats[0], key=str(seats[0]))).is_success
    assert about(grown, "operation", "seats", "paid", "refusals", "lock") == {
        "operation_duration_seconds_count pay done": 1,
        "operation_duration_seconds_count pay repeated": 1,
        "operation_duration_seconds_count release done": 1,
        "operation_duration_seconds_count release repeated": 1,
        "operation_duration_seconds_count hold repeated": 2,
        "seats_total pay": 1,
        "seats_total release": 1,
        "paid_minor_units_total EUR": 1250,
        "lock_wait_seconds_count reservations": 4,
        "lock_wait_seconds_count seats": 2 + 2,
        "lock_wait_seconds_count customers": 2,
    }


async def test_each_refusal_is_counted_by_its_reason(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer, other = await make_customers(sql, settings, 2)
    session, over = await make_session(sql, settings), await make_session(sql, settings, 16)
    await sql.execute("update sessions set showtime = now() where id = $1", over.id)
    taken, late, released = [(await book(client, customer, seat)).json() for seat in session.seat_ids[:3]]
    await make_overdue(sql, late["reservationId"])
    await release(client, customer, released["reservationId"])
    await book(client, customer, session.seat_ids[3], key="key")
    with moved() as grown:
        await book(client, other, session.seat_ids[0])
        await book(client, other, over.seat_ids[0])
        await book(client, other, 999_999)
        await book(client, other, session.seat_ids[5], over.seat_ids[0])
        await book(client, customer, session.seat_ids[4], key="key")
        await book(client, customer, *session.seat_ids[4:13])
        await pay(client, customer, late["reservationId"])
        await pay(client, customer, released["reservationId"])
        await pay(client, other, taken["reservationId"])
        assert (await pay(client, customer, taken["reservationId"])).is_success
        await release(client, customer, taken["reservationId"])
    assert about(grown, "refusals") == {
        "refusals_total hold taken": 1,
        "refusals_total hold closed": 1,
        "refusals_total hold not_found": 1,
        "refusals_total hold several_sessions": 1,
        "refusals_total hold key_reused": 1,
        "refusals_total hold limit": 1,
        "refusals_total pay expired": 1,
        "refusals_total pay cancelled": 1,
        "refusals_total pay not_found": 1,
        "refusals_total release paid": 1,
    }
    assert grown["operation_duration_seconds_count hold refused"] == 6


async def test_a_hold_during_the_cooldown_is_counted(sql: Connection, settings: Settings) -> None:
    customer, seats = await make_customer(sql, settings), (await make_session(sql, settings)).seat_ids
    async with serving(settings.model_copy(update={"unpaid_ends_max": 1})) as client:
        held = (await book(client, customer, seats[0])).json()
        await release(client, customer, held["reservationId"])
        with moved() as grown:
            assert (await book(client, customer, seats[1])).status_code == 429
    assert about(grown, "refusals") == {"refusals_total hold cooldown": 1}


async def test_a_lock_timeout_counts_as_refusal_wait_and_error(
    postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customer, seats = await make_customer(sql, settings), (await make_session(sql, settings)).seat_ids
    impatient = settings.model_copy(update={"lock_timeout_ms": 300})
    async with serving(impatient) as client, locked(postgres, "seats", seats[0]):
        before = gauge("lock_wait_seconds_sum seats")
        with moved() as grown:
            assert (await book(client, customer, seats[0])).status_code == 503
    assert grown == request("POST", "/customer/book", "unavailable") | {
        "operation_duration_seconds_count hold unavailable": 1,
        "refusals_total hold locked": 1,
        # In a list, and patiently outside of it.
        "retries_total one_by_one": 1,
        "database_errors_total lock_timeout": 2,
        "lock_wait_seconds_count customers": 2,
        "lock_wait_seconds_count seats": 2,
        "pool_wait_seconds_count": 2,
    }
    assert 0.3 <= gauge("lock_wait_seconds_sum seats") - before < 20


async def test_a_statement_timeout_counts_as_busy_not_as_locked(
    postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customer, seats = await make_customer(sql, settings), (await make_session(sql, settings)).seat_ids
    impatient = make_settings(
        postgres.url(), lock_timeout_ms=20_000, list_lock_timeout_ms=20_000, statement_timeout_ms=300
    )
    async with serving(impatient) as client, locked(postgres, "seats", seats[0]):
        with moved() as grown:
            assert (await book(client, customer, seats[0])).status_code == 503
    assert about(grown, "refusals", "database") == {
        "refusals_total hold busy": 1,
        "database_errors_total statement_timeout": 2,
    }


async def test_a_full_queue_and_a_full_pool_refuse_as_busy(postgres: Postgres, sql: Connection) -> None:
    settings = patient_settings(postgres, pool_size=1, pool_wait_ms=500, writes_max=2)
    (first, *others), seats = await make_customers(sql, settings, 3), (await make_session(sql, settings)).seat_ids
    async with serving(settings) as client:
        async with locked(postgres, "seats", seats[0]):
            with moved() as grown:
                held = asyncio.create_task(book(client, first, seats[0]))
                await until_lock_waits(sql)
                assert (gauge("writes_in_progress"), gauge("http_requests_in_progress")) == (1, 1)
                replies = await asyncio.gather(*(book(client, other, seats[1]) for other in others))
                assert [reply.status_code for reply in replies] == [503, 503]
        assert (await held).status_code == 201
    assert about(grown, "refusals", "database", "pool") == {
        "refusals_total hold busy": 2,
        "database_errors_total pool_timeout": 1,
        # One of the waits ended with a connection, the other with a timeout.
        "pool_wait_seconds_count": 2,
    }
    assert (gauge("writes_in_progress"), gauge("http_requests_in_progress")) == (0, 0)


async def test_a_deadlock_is_counted_and_retried(postgres: Postgres, sql: Connection, settings: Settings) -> None:
    customer, seats = await make_customer(sql, settings), (await make_session(sql, settings)).seat_ids
    engine = create_engine(settings.model_copy(update={"lock_timeout_ms": 15_000}), "rowlock-test")
    async with locked(postgres, "seats", seats[0]) as stranger:
        # The other transaction checks for deadlocks later, so that PostgreSQL ends ours.
        await stranger.execute("set deadlock_timeout = '20 s'")
        with moved() as grown:
            held = asyncio.create_task(hold_one(make_box_office(engine), hold_of(customer, seats[0])))
            await until_lock_waits(sql)
            await stranger.execute("select from accounts where id = $1 for no key update", customer.id)
            await stranger.execute("rollback")
            assert isinstance(await held, Held)
    assert about(grown, "database", "retries") == {"database_errors_total deadlock": 1, "retries_total collision": 1}
    await engine.dispose()


async def test_an_overdue_hold_in_the_way_is_ended_by_the_buyer(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer, other = await make_customers(sql, settings, 2)
    seats = (await make_session(sql, settings)).seat_ids
    held = (await book(client, customer, seats[0])).json()
    await make_overdue(sql, held["reservationId"])
    before = gauge("expiry_lateness_seconds_sum buyer")
    with moved() as grown:
        assert (await book(client, other, seats[0])).status_code == 201
    assert about(grown, "holds_expired", "retries", "expiry") == {
        "holds_expired_total buyer": 1,
        "expiry_lateness_seconds_count buyer": 1,
        "retries_total overdue": 1,
    }
    assert 29 < gauge("expiry_lateness_seconds_sum buyer") - before < 40


async def test_a_failed_list_counts_as_tried_one_by_one(
    postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customers, seats = await make_customers(sql, settings, 2), (await make_session(sql, settings)).seat_ids
    engine = create_engine(settings.model_copy(update={"lock_timeout_ms": 100}), "rowlock-test")
    box_office: BoxOffice = make_box_office(engine)
    held = [await hold_one(box_office, hold_of(who, seat)) for who, seat in zip(customers, seats, strict=False)]
    assert all(isinstance(one, Held) for one in held)
    async with locked(postgres, "seats", seats[0]):
        with moved() as grown:
            await box_office.hold_all([hold_of(customers[0], seats[0]), hold_of(customers[1], seats[2])])
    assert about(grown, "retries") == {"retries_total one_by_one": 1}
    await engine.dispose()
