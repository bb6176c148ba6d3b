"""Races for seats over three API processes on one database, as many customers as one likes at once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from itertools import cycle

import httpx
import pytest

from dev.postgres import Postgres
from service.database import Connection
from service.ledger import gathering
from service.settings import Settings
from tests.stage.crowd import PROCESSES, race, three_apis
from tests.stage.factories import Account, book, make_customer, make_customers, make_session, release
from tests.stage.forcing import PATIENT, count_deadlocks, keys

pytestmark = pytest.mark.oldest_postgresql

SEATS_TAKEN = "urn:rowlock:problem:seats-taken"
LANES, ROUNDS = 5, 200


@pytest.fixture(scope="module")
async def apis(postgres: Postgres) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Three API processes whose limits do not refuse requests on a slow machine."""
    async with three_apis(postgres.url(), **PATIENT) as clients:
        yield clients


async def test_five_hundred_customers_for_one_seat_have_one_winner(
    apis: list[httpx.AsyncClient], postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customers = await make_customers(sql, settings, 500)
    seat = (await make_session(sql, settings)).seat_ids[7]
    asks = [book(api, customer, seat) for api, customer in zip(cycle(apis), customers, strict=False)]
    replies = await race(postgres, sql, [seat], PROCESSES * gathering.LANES, asks)
    assert Counter(reply.status_code for reply in replies) == {201: 1, 409: 499}
    refusals = [reply.json() for reply in replies if reply.status_code == 409]
    assert all((refusal["type"], refusal["seatIds"]) == (SEATS_TAKEN, [seat]) for refusal in refusals)
    assert await sql.fetchval("select count(*) from reservations") == 1


async def test_ten_customers_for_two_seats_have_two_winners(
    apis: list[httpx.AsyncClient], postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customers = await make_customers(sql, settings, 10)
    seats = (await make_session(sql, settings)).seat_ids[:2]
    wanted = [seats[n % 2] for n in range(10)]
    asks = [book(api, who, seat) for api, who, seat in zip(cycle(apis), customers, wanted, strict=False)]
    replies = await race(postgres, sql, seats, PROCESSES, asks)
    assert Counter(reply.status_code for reply in replies) == {201: 2, 409: 8}
    won = [reply.json()["seats"][0]["seatId"] for reply in replies if reply.status_code == 201]
    assert sorted(won) == seats
    for seat, reply in zip(wanted, replies, strict=True):
        assert reply.status_code == 201 or reply.json()["seatIds"] == [seat]


async def test_ten_customers_who_try_both_seats_have_two_winners(
    apis: list[httpx.AsyncClient], sql: Connection, settings: Settings
) -> None:
    customers = await make_customers(sql, settings, 10)
    seats = list((await make_session(sql, settings)).seat_ids[:2])

    async def try_both(api: httpx.AsyncClient, customer: Account, first: int, second: int) -> list[int]:
        reply = await book(api, customer, first)
        replies = [reply] if reply.status_code == 201 else [reply, await book(api, customer, second)]
        return [reply.status_code for reply in replies]

    orders = cycle([seats, seats[::-1]])
    tries = await asyncio.gather(
        *(try_both(api, customer, *order) for api, customer, order in zip(cycle(apis), customers, orders, strict=False))
    )
    assert Counter(statuses[-1] for statuses in tries) == {201: 2, 409: 8}


async def _lane(
    apis: list[httpx.AsyncClient], first: int, a: Account, b: Account, seats: tuple[int, int]
) -> list[tuple[int, int]]:
    """A and B ask for the same two seats in opposite order, ROUNDS times; the winner releases them. The statuses."""
    rounds = []
    for n in range(first, first + ROUNDS):
        one, other = apis[n % PROCESSES], apis[(n + 1) % PROCESSES]
        of_a, of_b = await asyncio.gather(book(one, a, *seats), book(other, b, *seats[::-1]))
        rounds.append((of_a.status_code, of_b.status_code))
        for winner, reply in ((a, of_a), (b, of_b)):
            if reply.status_code == 201:
                assert (await release(one, winner, reply.json()["reservationId"])).status_code == 200
            else:
                assert reply.json()["seatIds"] == list(seats)
    return rounds


async def test_thousand_opposite_holds_never_deadlock(
    apis: list[httpx.AsyncClient], sql: Connection, settings: Settings
) -> None:
    deadlocks_before = await count_deadlocks(sql)
    customers = await make_customers(sql, settings, 2 * LANES)
    seats = (await make_session(sql, settings)).seat_ids
    lanes = [
        _lane(apis, n, customers[2 * n], customers[2 * n + 1], (seats[3 * n], seats[3 * n + 2])) for n in range(LANES)
    ]
    rounds = [statuses for lane in await asyncio.gather(*lanes) for statuses in lane]
    assert {tuple(sorted(statuses)) for statuses in rounds} == {(201, 409)}
    assert await sql.fetchval("select count(*) from reservations where state = 'CANCELLED'") == LANES * ROUNDS
    assert await count_deadlocks(sql) == deadlocks_before


async def test_fifty_racing_requests_with_one_key_get_equal_bodies(
    apis: list[httpx.AsyncClient], postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids[:2]
    (key,) = keys(1)
    asks = [book(api, customer, *seats, key=key) for api, _ in zip(cycle(apis), range(50), strict=False)]
    replies = await race(postgres, sql, seats, PROCESSES, asks)
    assert {reply.status_code for reply in replies} == {201}
    assert len({reply.content for reply in replies}) == 1
    assert Counter(reply.headers.get("Idempotency-Replayed") for reply in replies) == {None: 1, "true": 49}
    assert await sql.fetchval("select count(*) from reservations") == 1
