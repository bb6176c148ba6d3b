"""Three API processes over one database, and crowds of customers who use all three."""

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import starmap
from typing import Any, TypeVar
from uuid import UUID

import httpx

from dev.postgres import Postgres
from service.api.problems import MEDIA_TYPE, TYPE_PREFIX
from service.database import Connection
from tests.stage.factories import Account, book, pay, release
from tests.stage.forcing import keys, locked
from tests.stage.processes import api_process
from tests.stage.waiting import until_lock_waits

PROCESSES = 3
ANSWER_SECONDS_MAX = 90
"""Longer than whatever the service waits for; who is not answered by then is not answered at all."""

STORM_SECONDS = 30
HOLD_SECONDS = 1
AROUND_DEADLINE = (0.93, 1.03)
"""Of HOLD_SECONDS since the answer: who comes then is at the counter while the deadline passes."""
SEATS_PER_HOLD_MAX = 4
SEATS_SOLD_MAX = 28
"""The other seats are never paid for, since a sold seat is out of the storm."""

HOLD = "POST /customer/book"
PAY = "PUT /customer/pay/{reservationId}"
RELEASE = "DELETE /customer/reservation/{reservationId}"
ENDS = {
    (PAY, "200"): "CONFIRMED",
    (RELEASE, "200"): "CANCELLED",
    (PAY, "409 hold-expired"): "EXPIRED",
    (RELEASE, "409 hold-expired"): "EXPIRED",
    (PAY, "409 reservation-cancelled"): "CANCELLED",
    (RELEASE, "409 reservation-paid"): "CONFIRMED",
}
"""What an answer says about the reservation, for good."""

T = TypeVar("T")


@asynccontextmanager
async def three_apis(database_url: str, **changes: Any) -> AsyncIterator[list[httpx.AsyncClient]]:
    """A client of each of three API processes, with as many connections as it wants."""
    async with AsyncExitStack() as stack:
        apis = await enter_all(stack, [api_process(database_url, **changes) for _ in range(PROCESSES)])
        # Few are kept: for each request httpx asks every idle connection whether it is still good.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=10, keepalive_expiry=60)
        clients = [httpx.AsyncClient(base_url=api.url, limits=limits, timeout=ANSWER_SECONDS_MAX) for api in apis]
        yield await enter_all(stack, clients)


async def enter_all(stack: AsyncExitStack, contexts: Sequence[AbstractAsyncContextManager[T]]) -> list[T]:
    """Enters all of them side by side, since a process takes a second to start."""
    async with asyncio.TaskGroup() as group:
        entering = [group.create_task(stack.enter_async_context(context)) for context in contexts]
    return [task.result() for task in entering]


async def race(
    postgres: Postgres,
    sql: Connection,
    seat_ids: Sequence[int],
    waiting: int,
    asks: Sequence[Coroutine[Any, Any, httpx.Response]],
) -> list[httpx.Response]:
    """Sends all requests, and keeps the seats locked until this many wait. Returns the answers in order."""
    async with locked(postgres, "seats", *seat_ids):
        sent = [asyncio.create_task(ask) for ask in asks]
        await until_lock_waits(sql, waiting)
    return await asyncio.gather(*sent)


def outcome(reply: httpx.Response) -> str:
    """The status, and of a refusal its name too: `201`, `409 seats-taken`."""
    if reply.is_success:
        return str(reply.status_code)
    return f"{reply.status_code} {reply.json()['type'].removeprefix(TYPE_PREFIX)}"


async def documented(client: httpx.AsyncClient) -> dict[str, set[str]]:
    """The outcomes that the OpenAPI document gives to each route, such as `POST /customer/book`."""
    paths = (await client.get("/openapi.json")).json()["paths"]
    return {
        f"{method.upper()} {path}": set().union(*starmap(_outcomes, operation["responses"].items()))
        for path, operations in paths.items()
        for method, operation in operations.items()
    }


def _outcomes(status: str, response: Any) -> set[str]:
    names = response.get("content", {}).get(MEDIA_TYPE, {}).get("examples", {})
    return {f"{status} {name}" for name in names} or {status}


@dataclass(slots=True)
class Storm:
    """Some seats for STORM_SECONDS, and the answers that their customers got."""

    apis: Sequence[httpx.AsyncClient]
    seat_ids: Sequence[int]
    started: float = field(default_factory=time.monotonic)
    sold: int = 0
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    holds: dict[UUID, bytes] = field(default_factory=dict)
    ends: defaultdict[UUID, set[str]] = field(default_factory=lambda: defaultdict(set))
    settled_at: dict[UUID, datetime] = field(default_factory=dict)

    @property
    def elapsed(self) -> float:
        """Seconds."""
        return time.monotonic() - self.started

    @property
    def api(self) -> httpx.AsyncClient:
        """Any of them."""
        return random.choice(self.apis)

    def may_sell(self, count: int) -> bool:
        """Whether this many more seats may be sold already. They are counted as sold."""
        if self.sold + count > SEATS_SOLD_MAX * self.elapsed / STORM_SECONDS:
            return False
        self.sold += count
        return True

    def note(self, route: str, reply: httpx.Response, id_: UUID | None = None) -> str:
        """Remembers what the answer says; returns its outcome."""
        told = outcome(reply)
        self.counts[route, told] += 1
        if told == "201":
            id_ = UUID(reply.json()["reservationId"])
            assert self.holds.setdefault(id_, reply.content) == reply.content
        if id_ and (end := ENDS.get((route, told))):
            self.ends[id_].add(end)
        if id_ and told == "200":
            self.settled_at[id_] = datetime.fromisoformat(reply.json()["settledAt"])
        return told


@dataclass(frozen=True, slots=True)
class Ticket:
    """A hold that is kept until its deadline is near or over."""

    id: UUID
    seat_count: int
    held_at: float = field(default_factory=time.monotonic)

    @property
    def age(self) -> float:
        """Seconds since the answer came, so that the hold is a little older."""
        return time.monotonic() - self.held_at


@dataclass(slots=True)
class Shopper:
    """One device of a customer."""

    storm: Storm
    account: Account
    kept: list[Ticket] = field(default_factory=list)

    async def shop(self) -> None:
        """Holds, and does with each hold what its fate wants, until the storm is over."""
        while self.storm.elapsed < STORM_SECONDS:
            while self.kept and self.kept[0].age > 0.9 * HOLD_SECONDS:
                await self.come_late(self.kept.pop(0))
            ticket = await self.hold()
            if ticket is None:
                continue
            match random.choice(("pay", "release", "release", "release", "both", "keep", "forget")):
                case "pay":
                    await self.pay(ticket)
                case "release":
                    await self.release(ticket)
                case "both":
                    await asyncio.gather(self.pay(ticket), self.release(ticket))
                case "keep":
                    self.kept.append(ticket)

    async def hold(self) -> Ticket | None:
        """Asks for some seats that are near each other, in any order, sometimes twice at once with one key."""
        first = random.randint(0, len(self.storm.seat_ids) - SEATS_PER_HOLD_MAX)
        near = self.storm.seat_ids[first : first + SEATS_PER_HOLD_MAX]
        seat_ids = random.sample(near, random.randint(1, SEATS_PER_HOLD_MAX))
        (key,) = keys(1)
        twins = random.choice((1, 1, 2))
        replies = await asyncio.gather(*(book(self.storm.api, self.account, *seat_ids, key=key) for _ in range(twins)))
        held = {reply.json()["reservationId"] for reply in replies if self.storm.note(HOLD, reply) == "201"}
        assert len(held) <= 1
        return Ticket(UUID(held.pop()), len(seat_ids)) if held else None

    async def come_late(self, ticket: Ticket) -> None:
        """Pays or releases when the deadline is about to pass, or has just passed."""
        await asyncio.sleep(max(0.0, HOLD_SECONDS * random.uniform(*AROUND_DEADLINE) - ticket.age))
        await random.choice((self.pay, self.pay, self.release))(ticket)

    async def pay(self, ticket: Ticket) -> None:
        """Pays, or comes too late; releases where too much is sold already."""
        is_late = ticket.age >= HOLD_SECONDS
        if not is_late and not self.storm.may_sell(ticket.seat_count):
            await self.release(ticket)
            return
        told = self.storm.note(PAY, await pay(self.storm.api, self.account, str(ticket.id)), ticket.id)
        assert not (is_late and told == "200")
        if not is_late and told != "200":
            self.storm.sold -= ticket.seat_count

    async def release(self, ticket: Ticket) -> None:
        """Releases, or comes too late."""
        self.storm.note(RELEASE, await release(self.storm.api, self.account, str(ticket.id)), ticket.id)
