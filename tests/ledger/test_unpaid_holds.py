"""A customer whose holds keep ending unpaid, over HTTP and in the ledger: the wait, and the manager's view."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import Postgres
from service.api.customer import render_hold
from service.database import Connection
from service.errors import HoldCooldown
from service.ledger.booking import BoxOffice
from service.ledger.claims import Held, Rules
from service.ledger.cooldown import Patience
from service.ledger.unpaid import top_unpaid
from service.settings import Settings
from tests.conftest import serving
from tests.stage.factories import (
    Account,
    book,
    hold_of,
    make_customer,
    make_customers,
    make_manager,
    make_overdue,
    make_session,
    make_settings,
    pay,
    release,
)
from tests.stage.forcing import LIMITS

COOLDOWN = "urn:rowlock:problem:hold-cooldown"


@pytest.fixture
async def strict(postgres: Postgres, sql: Connection) -> AsyncIterator[httpx.AsyncClient]:  # noqa: ARG001 - it is emptied first
    """The API with the default rules for unpaid holds."""
    async with serving(make_settings(postgres.url(), unpaid_ends_max=3, rehold_seconds=10)) as client:
        yield client


async def hold_and_release(client: httpx.AsyncClient, customer: Account, *seat_ids: int) -> None:
    """A hold that the customer lets go at once."""
    held = await book(client, customer, *seat_ids)
    assert held.status_code == 201, held.text
    assert (await release(client, customer, held.json()["reservationId"])).status_code == 200


async def test_spinner_waits_and_others_get_the_seat(
    strict: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    spinner, other = await make_customers(sql, settings, 2)
    seats = (await make_session(sql, settings)).seat_ids
    for n in range(3):
        await hold_and_release(strict, spinner, seats[n])
    refused = await book(strict, spinner, seats[3])
    assert (refused.status_code, refused.json()["type"]) == (429, COOLDOWN)
    assert 28 <= int(refused.headers["retry-after"]) <= 30
    left = datetime.fromisoformat(refused.json()["until"]) - datetime.now(UTC)
    assert timedelta(seconds=25) < left <= timedelta(seconds=30)
    assert (await book(strict, other, seats[3])).status_code == 201


async def test_wait_is_of_one_session_only(strict: httpx.AsyncClient, sql: Connection, settings: Settings) -> None:
    spinner = await make_customer(sql, settings)
    here, elsewhere = await make_session(sql, settings), await make_session(sql, settings)
    for n in range(3):
        await hold_and_release(strict, spinner, here.seat_ids[n])
    assert (await book(strict, spinner, here.seat_ids[3])).status_code == 429
    assert (await book(strict, spinner, elsewhere.seat_ids[3])).status_code == 201


async def test_customer_who_lets_one_hold_lapse_notices_nothing(
    strict: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids[:10]
    held = (await book(strict, customer, *seats)).json()
    await make_overdue(sql, held["reservationId"])
    again = await book(strict, customer, *seats)
    assert again.status_code == 201
    assert (await pay(strict, customer, again.json()["reservationId"])).status_code == 200


async def test_overdue_holds_count_before_they_are_swept(
    strict: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids
    for n in range(3):
        held = (await book(strict, customer, seats[n])).json()
        # Each one ended before the next one began, and the last one a moment ago.
        await sql.execute(
            "update reservations set created_at = now() - $2::interval, expires_at = now() - $2::interval / 2"
            " where id = $1",
            held["reservationId"],
            timedelta(seconds=20 / 2**n),
        )
    assert (await book(strict, customer, seats[3])).json()["type"] == COOLDOWN
    assert await sql.fetchval("select count(*) from reservations where state = 'HELD'") == 3


async def test_a_payment_ends_the_wait(strict: httpx.AsyncClient, sql: Connection, settings: Settings) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids
    kept = (await book(strict, customer, seats[0])).json()
    for n in range(3):
        await hold_and_release(strict, customer, seats[n + 1])
    assert (await book(strict, customer, seats[5])).status_code == 429
    assert (await pay(strict, customer, kept["reservationId"])).status_code == 200
    assert (await book(strict, customer, seats[5])).status_code == 201


async def test_seat_let_go_twice_is_named(strict: httpx.AsyncClient, sql: Connection, settings: Settings) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids
    for _ in range(2):
        await hold_and_release(strict, customer, seats[0])
    refused = await book(strict, customer, seats[0], seats[1])
    assert (refused.json()["type"], refused.json()["seatIds"]) == (COOLDOWN, [seats[0]])
    assert (await book(strict, customer, seats[1])).status_code == 201


async def test_the_wait_is_exact_for_parallel_holds(
    strict: httpx.AsyncClient, engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    spinner, other = await make_customers(sql, settings, 2)
    seats = (await make_session(sql, settings, 100)).seat_ids
    for n in range(3):
        await hold_and_release(strict, spinner, seats[n])
    answers = await asyncio.gather(*(book(strict, spinner, seat_id) for seat_id in seats[10:30]))
    assert {answer.status_code for answer in answers} == {429}
    box_office = BoxOffice(engine, Rules(30, 10, Patience(3, 10, 10)), render_hold, LIMITS)
    requests = [hold_of(spinner, seats[30]), hold_of(other, seats[31]), hold_of(spinner, seats[32])]
    in_one_list = await box_office.hold_all(requests)
    assert [type(answer) for answer in in_one_list] == [HoldCooldown, Held, HoldCooldown]


async def test_a_replayed_hold_is_not_refused(strict: httpx.AsyncClient, sql: Connection, settings: Settings) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids
    first = await book(strict, customer, seats[0], key="first")
    for n in range(3):
        await hold_and_release(strict, customer, seats[n + 1])
    again = await book(strict, customer, seats[0], key="first")
    assert (again.status_code, again.text) == (201, first.text)


async def test_manager_sees_who_keeps_seats_unpaid(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    spinner, buyer = await make_customers(sql, settings, 2)
    manager = await make_manager(sql, settings)
    session = await make_session(sql, settings)
    for n in range(2):
        held = (await book(client, spinner, *session.seat_ids[2 * n : 2 * n + 2])).json()
        await make_overdue(sql, held["reservationId"])
        assert (await pay(client, spinner, held["reservationId"])).status_code == 409
    paid = (await book(client, buyer, session.seat_ids[9])).json()
    await pay(client, buyer, paid["reservationId"])
    await book(client, buyer, session.seat_ids[10])
    path = f"/manager/session/{session.id}/abuse"
    seen = (await client.get(path, headers=manager.headers)).json()
    assert seen["customers"] == [{"customerId": str(spinner.id), "holds": 2, "seats": 4, "seatSeconds": 120}]
    assert datetime.fromisoformat(seen["since"]) < datetime.now(UTC) - timedelta(minutes=9)
    other = await make_session(sql, settings)
    empty = (await client.get(f"/manager/session/{other.id}/abuse?minutes=1", headers=manager.headers)).json()
    assert empty["customers"] == []
    for query in ("minutes=0", "minutes=61", "limit=0", "limit=101"):
        assert (await client.get(f"{path}?{query}", headers=manager.headers)).status_code == 422
    unknown = await client.get("/manager/session/4711/abuse", headers=manager.headers)
    assert (unknown.status_code, unknown.json()["what"]) == (404, "session")


async def test_managers_view_reads_a_bounded_number_of_rows(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customers = await make_customers(sql, settings, 4)
    session = await make_session(sql, settings)
    for n, customer in enumerate(customers):
        await hold_and_release(client, customer, session.seat_ids[n])
    newest = await top_unpaid(sql, session.id, 10, customers_max=20, reservations_max=2)
    assert {one.customer_id for one in newest.customers} == {customers[2].id, customers[3].id}
    assert newest.since == await sql.fetchval("select created_at from reservations order by id desc offset 1 limit 1")
    assert len((await top_unpaid(sql, session.id, 10, customers_max=3)).customers) == 3
