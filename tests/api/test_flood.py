"""While one account floods the API, others are answered, and refusing the flood is cheap."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import Redis
from service.database import Connection
from service.settings import Settings
from tests.stage.factories import Account, hold_of, make_customers, make_session
from tests.stage.forcing import give_all
from tests.stage.processes import Process, api_process

FLOODERS = 8
REQUESTS_PER_MINUTE = 20
ROUNDS, ASKED_IN_ROUND = 3, 5
RESERVATIONS, SEATS = 100, 10
"""The flooding account's history, so that each of its requests would be costly if it were answered."""
CHEAPER_MIN = 2.0
"""An answer costs at least this many times as much as a refusal."""


@dataclass(slots=True)
class Flooded:
    """The answers of an API to a flood, and the CPU time that they took."""

    api: Process
    answers: Counter[int] = field(default_factory=Counter)
    cpu_seconds: float = 0

    async def ask_beside(self, flooding: Account, quiet: Account, until_answered: int) -> None:
        """Sends requests of another account during a flood. All are answered."""
        cpu_before = self.api.cpu_seconds()
        async with flood(self.api.url, flooding, until_answered) as answers, client_of(self.api.url) as client:
            for _ in range(ASKED_IN_ROUND):
                assert (await client.get("/customer/list-history", headers=quiet.headers)).status_code == 200
        self.answers += answers
        self.cpu_seconds += self.api.cpu_seconds() - cpu_before

    def cost(self) -> float:
        """CPU seconds for each answer."""
        return self.cpu_seconds / self.answers.total()


async def test_a_flood_from_one_account_refuses_no_other(
    postgres: Postgres, sql: Connection, settings: Settings, redis: Redis | Container
) -> None:
    flooding, quiet = await make_customers(sql, settings, 2)
    seats = (await make_session(sql, settings, RESERVATIONS * SEATS)).seat_ids
    await give_all(sql, [hold_of(flooding, *seats[n : n + SEATS]) for n in range(0, len(seats), SEATS)])
    async with (
        api_process(postgres.url(), redis_url=redis.url, account_requests_per_minute=REQUESTS_PER_MINUTE) as limited,
        api_process(postgres.url(), redis_url=redis.url) as unlimited,
    ):
        with_limit, without = Flooded(limited), Flooded(unlimited)
        for _ in range(ROUNDS):
            await with_limit.ask_beside(flooding, quiet, until_answered=429)
            await without.ask_beside(flooding, quiet, until_answered=200)
    assert with_limit.answers[200] <= 2 * REQUESTS_PER_MINUTE, "a slow machine may take more than a minute"
    assert with_limit.answers[429] > with_limit.answers[200]
    assert set(with_limit.answers) == {200, 429}
    assert CHEAPER_MIN * with_limit.cost() < without.cost()


def client_of(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=30)


@asynccontextmanager
async def flood(url: str, account: Account, until_answered: int) -> AsyncIterator[Counter[int]]:
    """Requests long histories during the block, which begins with the first answer of this status. The answers are
    complete after the block.
    """
    answers: Counter[int] = Counter()
    begun, ended = asyncio.Event(), asyncio.Event()

    async def ask_again_and_again(client: httpx.AsyncClient) -> None:
        while not ended.is_set():
            reply = await client.get("/customer/list-history?state=ALL&limit=100", headers=account.headers)
            answers[reply.status_code] += 1
            if reply.status_code == until_answered:
                begun.set()

    async with client_of(url) as client, asyncio.TaskGroup() as group:
        for _ in range(FLOODERS):
            group.create_task(ask_again_and_again(client))
        await asyncio.wait_for(begun.wait(), 60)
        try:
            yield answers
        finally:
            ended.set()
