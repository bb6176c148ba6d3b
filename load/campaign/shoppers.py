"""Seeded clients: each does random operations on few seats and records every request with its answer."""

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from load.campaign.history import HISTORY, HOLD, LIST, MAP, PAY, RELEASE, Operation
from load.campaign.requests import recorded, request_of
from load.campaign.wire import Wire

TRIES_MAX = 5
TIMEOUT_SECONDS = 12.0
KEPT_MAX = 20
HANG_UP_SHARE = 0.02
UNAVAILABLE = 503
SHARES = {
    "hold": 34,
    "pay": 8,
    "release": 22,
    "late": 3,
    "twice": 4,
    "replay": 6,
    "reuse": 3,
    "foreign": 1,
    "map": 12,
    "list": 4,
    "history": 4,
}
"""Of each hundred actions. Few are paid for: a sold seat is out of the game."""


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer with a token."""

    id: str
    token: str


@dataclass(frozen=True, slots=True)
class OnSale:
    """A session: its id, its seats by position, and the number of seats that may be sold in it."""

    id: int
    seats: Sequence[int]
    sold_max: int


@dataclass(slots=True)
class Field:
    """Shared by all clients: the service's addresses, the sessions on sale, and the record of operations."""

    urls: Sequence[str]
    sessions: Sequence[OnSale]
    hold_seconds: float
    record: Callable[[Operation], None]
    ends_at: float
    sold: Counter[int] = field(default_factory=Counter)
    numbers: int = 0
    recent: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=KEPT_MAX))
    """Recent holds with their customers, for attempts by other customers."""

    def next_number(self) -> int:
        """The id of the next operation."""
        self.numbers += 1
        return self.numbers

    @property
    def is_over(self) -> bool:
        """Whether the clients shall stop."""
        return time.monotonic() >= self.ends_at


@dataclass(slots=True)
class Held:
    """A hold that the client remembers."""

    session: OnSale
    seats: tuple[int, ...]
    key: str
    reservation: str
    since: float


class Client:
    """One device of a customer. The seed decides everything but the answers."""

    def __init__(self, ground: Field, customer: Customer, seed: str) -> None:
        self._ground = ground
        self._customer = customer
        self._chance = random.Random(seed)
        self._seed = seed
        self._wires = [Wire(url, TIMEOUT_SECONDS) for url in ground.urls]
        self._held: list[Held] = []
        self._past: list[Held] = []
        self._keys = 0
        self._unknown: dict[tuple[str, str | None, str | None], Operation] = {}

    async def run(self) -> None:
        """Acts until the campaign is over."""
        actions = {
            "hold": self._hold, "pay": self._pay, "release": self._release, "late": self._come_late,
            "twice": self._pay_twice, "replay": self._replay, "foreign": self._settle_foreign,
            "reuse": self._reuse_key, "map": self._read_map, "list": self._read_list, "history": self._read_history,
        }  # fmt: skip
        names, weights = list(SHARES), list(SHARES.values())
        while not self._ground.is_over:
            (name,) = self._chance.choices(names, weights)
            await actions[name]()
        for wire in self._wires:
            wire.close()

    async def resolve(self) -> None:
        """Repeats each request with an unknown outcome, as its customer would, until the outcome is known."""
        for operation in list(self._unknown.values()):
            facts = {"session": operation.session, "seats": operation.seats, "key": operation.key}
            if operation.kind != HOLD:
                facts = {"reservation": operation.reservation}
            await self._until_known(operation.kind, **facts)

    async def read_last(self, session: int) -> None:
        """The map and the list, when all is quiet."""
        await self._send(MAP, session=session)
        await self._send(LIST, session=session)

    async def _hold(self) -> None:
        session = self._chance.choice(self._ground.sessions)
        first = self._chance.randrange(len(session.seats))
        near = session.seats[first : first + 4]
        seats = tuple(self._chance.sample(near, self._chance.randint(1, min(3, len(near)))))
        self._keys += 1
        key = f"{self._seed}-{self._keys}"
        operation = await self._until_known(HOLD, session=session.id, seats=seats, key=key)
        if operation.succeeded and operation.reservation:
            self._ground.recent.append((self._customer.id, operation.reservation))
            self._held.append(Held(session, seats, key, operation.reservation, time.monotonic()))
            del self._held[:-KEPT_MAX]

    async def _pay(self) -> None:
        held = self._take()
        if held is None:
            return
        if self._ground.sold[held.session.id] + len(held.seats) > held.session.sold_max:
            await self._until_known(RELEASE, reservation=held.reservation)
            return
        self._ground.sold[held.session.id] += len(held.seats)
        operation = await self._until_known(PAY, reservation=held.reservation)
        if operation.changed_nothing:
            self._ground.sold[held.session.id] -= len(held.seats)

    async def _release(self) -> None:
        if (held := self._take()) is not None:
            await self._until_known(RELEASE, reservation=held.reservation)

    async def _come_late(self) -> None:
        """Pays when the deadline is about to pass, or has just passed."""
        held = self._take()
        if held is None or self._ground.sold[held.session.id] + len(held.seats) > held.session.sold_max:
            return
        self._ground.sold[held.session.id] += len(held.seats)
        due = held.since + self._ground.hold_seconds * self._chance.uniform(0.95, 1.1)
        await asyncio.sleep(max(0.0, min(due, self._ground.ends_at) - time.monotonic()))
        operation = await self._until_known(PAY, reservation=held.reservation)
        if operation.changed_nothing:
            self._ground.sold[held.session.id] -= len(held.seats)

    async def _pay_twice(self) -> None:
        """Settles a past hold again: pays it twice, releases it after the payment, or pays it after the release."""
        if self._past:
            held = self._chance.choice(self._past[-KEPT_MAX:])
            if self._ground.sold[held.session.id] < held.session.sold_max:
                kind = self._chance.choice((PAY, RELEASE))
                await self._send(kind, reservation=held.reservation)

    async def _replay(self) -> None:
        known = (self._held + self._past)[-KEPT_MAX:]
        if known:
            held = self._chance.choice(known)
            await self._send(HOLD, session=held.session.id, seats=held.seats, key=held.key)

    async def _reuse_key(self) -> None:
        """The same key for other seats."""
        known = (self._held + self._past)[-KEPT_MAX:]
        if known:
            held = self._chance.choice(known)
            seats = tuple(seat for seat in held.session.seats if seat not in held.seats)[:2]
            await self._send(HOLD, session=held.session.id, seats=seats, key=held.key)

    async def _settle_foreign(self) -> None:
        """Pays or releases another customer's hold, which must be as if it did not exist."""
        if self._ground.recent:
            owner, reservation = self._chance.choice(self._ground.recent)
            if owner != self._customer.id:
                await self._send(self._chance.choice((PAY, RELEASE)), reservation=reservation)

    async def _read_map(self) -> None:
        await self._send(MAP, session=self._chance.choice(self._ground.sessions).id)

    async def _read_list(self) -> None:
        await self._send(LIST, session=self._chance.choice(self._ground.sessions).id)

    async def _read_history(self) -> None:
        await self._send(HISTORY)

    def _take(self) -> Held | None:
        if not self._held:
            return None
        held = self._held.pop(self._chance.randrange(len(self._held)))
        self._past.append(held)
        del self._past[:-KEPT_MAX]
        return held

    async def _until_known(self, kind: str, **facts: Any) -> Operation:
        """Repeats the request while its outcome is unknown or the service is busy, as a good client does."""
        for n in range(TRIES_MAX):
            hang_up = n == 0 and self._chance.random() < HANG_UP_SHARE
            operation = await self._send(kind, hang_up=hang_up, **facts)
            place = (kind, facts.get("key"), facts.get("reservation"))
            if not operation.is_unknown and operation.status != UNAVAILABLE:
                self._unknown.pop(place, None)
                break
            self._unknown[place] = operation
            await asyncio.sleep(self._chance.uniform(0.05, 0.2) * 2**n)
        return operation

    async def _send(self, kind: str, *, hang_up: bool = False, **facts: Any) -> Operation:
        method, path, body = request_of(kind, facts)
        headers = {"Authorization": f"Bearer {self._customer.token}", "Content-Type": "application/json"}
        if not body:
            del headers["Content-Type"]
        if facts.get("key"):
            headers["Idempotency-Key"] = facts["key"]
        number = self._ground.next_number()
        wire = self._chance.choice(self._wires)
        invoked = time.time_ns() // 1_000
        answer = await wire.ask(method, path, headers, body, hang_up=hang_up)
        answered = time.time_ns() // 1_000
        operation = Operation(number, kind, self._customer.id, invoked, **facts)
        if answer is not None:
            operation = recorded(operation, answered, answer)
        self._ground.record(operation)
        return operation
