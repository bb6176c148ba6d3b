"""The work of a write, counted on the wire: a change that makes a hold, payment or release cost more fails here.

Lower a number when a change makes one cheaper. Raise one only for a reason that is worth the throughput.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import httpx
import pytest

import service
from dev.postgres import Postgres
from service.database import Connection, create_engine
from service.ledger.booking import BoxOffice
from service.reservation import State
from service.settings import Settings
from tests.conftest import serving
from tests.stage.factories import (
    Account,
    book,
    hold_of,
    make_customers,
    make_session,
    make_settings,
    pay,
    release,
    settle_of,
)
from tests.stage.forcing import make_box_office
from tests.stage.round_trips import RoundTrips, counted

CALLS_ALONE, CALLS_IN_LIST = 310, 64
"""Calls of the service's functions for a hold over HTTP, and for each of a list: what its CPU time depends on most."""
HOLD, SETTLEMENT = 6, 6
"""Round trips of a list, whatever its length: BEGIN, the statements, COMMIT."""
SERVICE = str(Path(service.__file__).parent)
LIST = 64
WARM_UP = 3
"""Writes before the counted one: they connect, prepare statements and read the types."""


@pytest.fixture
async def trips(postgres: Postgres, sql: Connection) -> AsyncIterator[RoundTrips]:  # noqa: ARG001 - it is emptied first
    """What the service sends to PostgreSQL."""
    async with counted(postgres) as made:
        yield made


@pytest.fixture
async def api(trips: RoundTrips) -> AsyncIterator[httpx.AsyncClient]:
    """The API, whose round trips are counted."""
    async with serving(make_settings(trips.url)) as client:
        yield client


@pytest.fixture
async def box_office(trips: RoundTrips) -> AsyncIterator[BoxOffice]:
    """The two writes, whose round trips are counted."""
    engine = create_engine(make_settings(trips.url), "rowlock-test")
    yield make_box_office(engine)
    await engine.dispose()


@contextmanager
def counted_calls() -> Iterator[list[int]]:
    """The number of calls of the service's functions in the block, in a list of one."""
    found = [0]

    def note(frame: FrameType, event: str, _argument: object) -> None:
        found[0] += event == "call" and frame.f_code.co_filename.startswith(SERVICE)

    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(None)


def commits(trips: RoundTrips) -> int:
    """The number of COMMITs."""
    return trips.statements.count("commit")


async def held(api: httpx.AsyncClient, customer: Account, seat_id: int) -> str:
    """The id of a new hold."""
    response = await book(api, customer, seat_id, key=f"key-{seat_id}")
    assert response.status_code == httpx.codes.CREATED
    return str(response.json()["reservationId"])


async def test_lone_request_costs_no_more(
    api: httpx.AsyncClient, trips: RoundTrips, sql: Connection, settings: Settings
) -> None:
    customers = await make_customers(sql, settings, 2 * WARM_UP)
    seats = (await make_session(sql, settings)).seat_ids
    for n, settle in enumerate((pay, release) * WARM_UP):
        trips.forget()
        with counted_calls() as calls:
            reservation_id = await held(api, customers[n], seats[n])
        hold = trips.count, commits(trips)
        trips.forget()
        assert (await settle(api, customers[n], reservation_id)).is_success
        settlement = trips.count, commits(trips)
    assert hold == (HOLD, 1)
    assert calls[0] <= CALLS_ALONE
    assert settlement == (SETTLEMENT, 1)


async def test_list_of_holds_costs_what_one_costs(
    box_office: BoxOffice, trips: RoundTrips, sql: Connection, settings: Settings
) -> None:
    customers = await make_customers(sql, settings, LIST)
    seats = (await make_session(sql, settings, LIST * WARM_UP)).seat_ids
    for n in range(WARM_UP):
        trips.forget()
        requests = [hold_of(customer, seats[n * LIST + m], key=f"key-{n}") for m, customer in enumerate(customers)]
        with counted_calls() as calls:
            await asyncio.gather(*map(box_office.hold, requests))
    assert (trips.count, commits(trips)) == (HOLD, 1)
    assert calls[0] / LIST <= CALLS_IN_LIST


@pytest.mark.parametrize("target", [State.CONFIRMED, State.CANCELLED])
async def test_list_of_settlements_costs_what_one_costs(
    box_office: BoxOffice, trips: RoundTrips, sql: Connection, settings: Settings, target: State
) -> None:
    customers = await make_customers(sql, settings, LIST)
    seats = (await make_session(sql, settings, LIST * WARM_UP)).seat_ids
    for n in range(WARM_UP):
        requests = [hold_of(customer, seats[n * LIST + m]) for m, customer in enumerate(customers)]
        await asyncio.gather(*map(box_office.hold, requests))
        trips.forget()
        settlements = [
            settle_of(request.reservation_id, target, customer)
            for request, customer in zip(requests, customers, strict=True)
        ]
        await asyncio.gather(*map(box_office.settle, settlements))
    assert (trips.count, commits(trips)) == (SETTLEMENT, 1)
