"""One account floods the API: another is answered as before, where without the limit it would wait in the queue."""

import asyncio
import statistics
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import Redis
from service.database import Connection
from service.settings import Settings
from tests.factories import Account, hold_of, make_customers, make_session
from tests.forcing import give_all
from tests.processes import api_process

FLOODERS = 8
REQUESTS_PER_MINUTE = 60
ROUNDS, ASKED_IN_ROUND = 3, 5
RESERVATIONS, SEATS = 100, 10
"""What the flooding account has, so that each of its requests would be work if it were let in."""
SLOWER_MIN = 2.0
"""Without the limit, at the least: an answer to the flood is so much work, and a refusal so little."""


async def test_a_flood_from_one_account_neither_refuses_another_nor_slows_it_as_it_would_without_the_limit(
    postgres: Postgres, sql: Connection, settings: Settings, redis: Redis | Container
) -> None:
    flooding, quiet = await make_customers(sql, settings, 2)
    seats = (await make_session(sql, settings, RESERVATIONS * SEATS)).seat_ids
    await give_all(sql, [hold_of(flooding, *seats[n : n + SEATS]) for n in range(0, len(seats), SEATS)])
    with_limit: list[float] = []
    without: list[float] = []
    answers: Counter[int] = Counter()
    async with (
        api_process(postgres.url(), redis_url=redis.url, account_requests_per_minute=REQUESTS_PER_MINUTE) as limited,
        api_process(postgres.url(), redis_url=redis.url) as unlimited,
    ):
        # By turns, so that whoever else is busy on the machine delays both.
        for _ in range(ROUNDS):
            async with flood(limited.url, flooding, until_answered=429) as counted:
                with_limit += await seconds_of(limited.url, quiet)
            answers += counted
            async with flood(unlimited.url, flooding, until_answered=200):
                without += await seconds_of(unlimited.url, quiet)
    assert answers[200] <= 2 * REQUESTS_PER_MINUTE, "a slow machine may take more than a minute"
    assert answers[429] > answers[200]
    assert set(answers) == {200, 429}
    assert SLOWER_MIN * statistics.median(with_limit) < statistics.median(without)


@asynccontextmanager
async def flood(url: str, account: Account, until_answered: int) -> AsyncIterator[Counter[int]]:
    """Long histories are asked for again and again during the block, which begins with the first answer of that kind;
    what they were answered is known after it.
    """
    answers: Counter[int] = Counter()
    begun, ended = asyncio.Event(), asyncio.Event()

    async def ask_again_and_again(client: httpx.AsyncClient) -> None:
        while not ended.is_set():
            reply = await client.get("/customer/list-history?state=ALL&limit=100", headers=account.headers)
            answers[reply.status_code] += 1
            if reply.status_code == until_answered:
                begun.set()

    async with httpx.AsyncClient(base_url=url, timeout=30) as client, asyncio.TaskGroup() as group:
        for _ in range(FLOODERS):
            group.create_task(ask_again_and_again(client))
        await asyncio.wait_for(begun.wait(), 60)
        try:
            yield answers
        finally:
            ended.set()


async def seconds_of(url: str, account: Account) -> list[float]:
    """How long somebody else's requests take, all of which are answered."""
    clock, seconds = asyncio.get_running_loop().time, []
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        for _ in range(ASKED_IN_ROUND):
            began = clock()
            assert (await client.get("/customer/list-history", headers=account.headers)).status_code == 200
            seconds.append(clock() - began)
    return seconds
