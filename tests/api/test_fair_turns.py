"""Sign-ins from a few addresses leave all others their turn at the thread for passwords."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx
import pytest

from dev.postgres import Postgres
from service.accounts.turns import Asker, FairTurns
from service.database import Connection
from service.errors import Busy
from tests.stage.processes import Process, api_process

FLOODING = [f"203.0.113.{n}" for n in range(30)]
QUIET = "198.51.100.7"
EMAIL, PASSWORD = "ada@example.com", "correct horse battery"


class Line:
    """Work that takes turns; `served` and `refused` have the names of that which ended."""

    def __init__(self, places_max: int) -> None:
        self.turns = FairTurns(places_max)
        self.served: list[str] = []
        self.refused: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def join(self, *names: str, is_clean: bool = False) -> None:
        """Lets work ask for a turn. The first letter of its name is its address."""
        for name in names:
            self.tasks[name] = asyncio.create_task(self._work(name, Asker(name[0], is_clean)))
            await asyncio.sleep(0)

    async def _work(self, name: str, asker: Asker) -> None:
        try:
            await self.turns.take(asker)
        except Busy:
            self.refused.append(name)
        else:
            self.served.append(name)

    async def serve(self, count: int) -> list[str]:
        """Ends so many turns, one after the other. Returns the work whose turns came then."""
        before = len(self.served)
        for _ in range(count):
            self.turns.give_back()
            await asyncio.sleep(0)
        return self.served[before:]


async def test_addresses_take_turns() -> None:
    line = Line(places_max=20)
    await line.join("now", "a1", "a2", "a3", "b1", "c1", "c2")
    assert await line.serve(6) == ["a1", "b1", "c1", "a2", "c2", "a3"]


async def test_accounts_without_failures_have_every_second_turn() -> None:
    line = Line(places_max=20)
    await line.join("now", *"abcd")
    await line.join(*"xyz", is_clean=True)
    assert await line.serve(7) == ["x", "a", "y", "b", "z", "c", "d"]


async def test_a_new_address_gets_a_place_from_the_one_with_the_most() -> None:
    line = Line(places_max=6)
    await line.join("now", "a1", "a2", "a3", "b1", "b2")
    await line.join("c1")
    await asyncio.sleep(0)
    assert line.refused == ["a3"]
    await line.join("c2", "b3", "c3")
    assert line.refused == ["a3", "c2", "b3", "c3"], "no address gets more than the others"
    assert await line.serve(5) == ["a1", "b1", "c1", "a2", "b2"]


@pytest.mark.parametrize("is_clean", [True, False], ids=["accounts without failures", "others"])
async def test_half_of_the_places_are_kept_for_either_lane(is_clean: bool) -> None:  # noqa: FBT001 - a parameter
    line = Line(places_max=9)
    await line.join("now", *"abcdefgh", is_clean=not is_clean)
    await line.join(*"rstu", is_clean=is_clean)
    await asyncio.sleep(0)
    assert sorted(line.refused) == list("efgh"), "those whose turns are last"
    await line.join("v", is_clean=is_clean)
    assert line.refused[-1] == "v"
    assert set("rstu") <= set(await line.serve(8))


async def test_one_place_has_no_queue() -> None:
    line = Line(places_max=1)
    await line.join("now", "a", "b")
    assert line.refused == ["a", "b"]
    await line.serve(1)
    await line.join("c")
    assert line.served == ["now", "c"]


async def test_work_that_is_cancelled_gives_its_place_and_turn_away() -> None:
    line = Line(places_max=3)
    await line.join("now", "a1", "b1")
    line.tasks["a1"].cancel()
    await asyncio.sleep(0)
    await line.join("c1")
    assert line.refused == []
    # The turn of b1 comes, and it is cancelled before it can begin.
    line.turns.give_back()
    line.tasks["b1"].cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert line.served == ["now", "c1"]


async def test_refused_work_that_is_cancelled_ends_no_turn() -> None:
    line = Line(places_max=3)
    await line.join("now", "a1", "a2")
    # The place of a2 is given to b1, and a2 is cancelled before it notices.
    await line.join("b1")
    line.tasks["a2"].cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert line.tasks["a2"].cancelled()
    assert line.served == ["now"], "one works at a time"


async def sign_in(client: httpx.AsyncClient, address: str, email: str, password: str) -> httpx.Response:
    """The answer to a sign-in from this address, behind a proxy."""
    body = {"email": email, "password": password}
    return await client.post("/sign-in", json=body, headers={"X-Forwarded-For": address})


@asynccontextmanager
async def flood(api: Process, addresses: Sequence[str], at_once: int) -> AsyncIterator[Counter[int]]:
    """Sign-ins of unknown accounts from each address during the block, which begins when the first is refused."""
    answers: Counter[int] = Counter()
    ended, full = asyncio.Event(), asyncio.Event()

    async def guess(client: httpx.AsyncClient, address: str, number: int) -> None:
        tries = 0
        while not ended.is_set():
            tries += 1
            reply = await sign_in(client, address, f"{address}-{number}-{tries}@example.com", "guess")
            answers[reply.status_code] += 1
            if reply.status_code == 503:
                full.set()

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=api.url, timeout=120, limits=limits) as client, asyncio.TaskGroup() as group:
        for address in addresses:
            for number in range(at_once):
                group.create_task(guess(client, address, number))
        await asyncio.wait_for(full.wait(), 60)
        try:
            yield answers
        finally:
            ended.set()


async def test_a_flood_from_30_addresses_denies_sign_in_to_no_other(postgres: Postgres, sql: Connection) -> None:
    async with (
        api_process(postgres.url(), trusted_proxies="127.0.0.0/8", pool_wait_ms=60_000) as api,
        httpx.AsyncClient(base_url=api.url, timeout=120) as client,
    ):
        body = {"email": EMAIL, "password": PASSWORD, "name": "Ada"}
        assert (await client.post("/sign-up", json=body)).status_code == 201
        async with flood(api, FLOODING, at_once=3) as answers:
            replies = [await sign_in(client, QUIET, EMAIL, PASSWORD) for _ in range(2)]
    assert [reply.status_code for reply in replies] == [200] * 2
    assert answers[503] > 0, "the queue was full"
    assert await sql.fetchval("select count(*) from accounts") == 1
