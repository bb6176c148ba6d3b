"""Seeded clients: each does random operations on few seats and records every request with its answer."""

import asyncio
import random
import time
from dataclasses import dataclass
from datetime import datetime

from load.campaign.device import Device
from load.campaign.ground import Customer, Field, OnSale
from load.campaign.history import HISTORY, HOLD, LIST, MAP, PAY, RELEASE, Operation

KEPT_MAX = 20
OTHER_SEATS_SHARE = 0.7
AT_ONCE_SHARE = 0.3
"""Of the holds are paid at once: later is often too late."""
NEWEST_SHARE = 0.7
EARLY_SECONDS_MAX, LATE_SECONDS_MAX = 0.05, 0.1
"""Around the deadline: a moment later the hold has been released."""
SHARES = {
    "hold": 24,
    "together": 4,
    "pay": 7,
    "release": 16,
    "late": 6,
    "twice": 3,
    "replay": 4,
    "reuse": 3,
    "foreign": 1,
    "map": 20,
    "list": 6,
    "history": 6,
}
"""Of each hundred actions. Few are paid for: a sold seat is out of the game."""


@dataclass(slots=True)
class Held:
    """A hold that the client remembers."""

    session: OnSale
    seats: tuple[int, ...]
    key: str
    reservation: str
    expires_at: float


class Client:
    """One device of a customer. The seed decides everything but the answers."""

    def __init__(self, ground: Field, customer: Customer, seed: str) -> None:
        self._ground = ground
        self._customer = customer
        self._chance = random.Random(seed)
        self._seed = seed
        self.device = Device(ground, customer, self._chance)
        self._held: list[Held] = []
        self._past: list[Held] = []
        self._keys = 0

    async def run(self) -> None:
        """Acts until the campaign is over."""
        actions = {
            "hold": self._hold, "together": self._hold_together, "pay": self._pay, "release": self._release,
            "late": self._come_late, "twice": self._pay_twice, "replay": self._replay,
            "foreign": self._settle_foreign, "reuse": self._reuse_key, "map": self._read_map,
            "list": self._read_list, "history": self._read_history,
        }  # fmt: skip
        names, weights = list(SHARES), list(SHARES.values())
        while not self._ground.is_over:
            (name,) = self._chance.choices(names, weights)
            await actions[name]()
        self.device.close()

    async def read_last(self, session: int) -> None:
        """The map and the list, when all is quiet; again where the service is busy."""
        await self.device.send_until_known(MAP, session=session)
        await self.device.send_until_known(LIST, session=session)

    async def _hold(self) -> None:
        session = self._chance.choice(self._ground.sessions)
        seats, key = self._choose(session), self._next_key()
        operation = await self.device.send_until_known(HOLD, session=session.id, seats=seats, key=key)
        self._remember(session, key, operation)
        if operation.succeeded and self._chance.random() < AT_ONCE_SHARE:
            await self._pay()

    async def _hold_together(self) -> None:
        """Sends a hold to each API at once: a double click with one key, or two devices near the limit."""
        session = self._chance.choice(self._ground.sessions)
        seats, key = self._choose(session), self._next_key()
        asked = [(seats, key)] * len(self.device.wires)
        if self._chance.random() < OTHER_SEATS_SHARE:
            asked = [(self._choose(session), self._next_key()) for _ in self.device.wires]
        sent = (
            self.device.send(HOLD, wire=wire, session=session.id, seats=seats, key=key)
            for wire, (seats, key) in zip(self.device.wires, asked, strict=True)
        )
        for (_, key), operation in zip(asked, await asyncio.gather(*sent), strict=True):
            self._remember(session, key, operation)

    def _choose(self, session: OnSale) -> tuple[int, ...]:
        """Neighbouring seats in any order."""
        first = self._chance.randrange(len(session.seats))
        near = session.seats[first : first + 4]
        return tuple(self._chance.sample(near, self._chance.randint(1, min(3, len(near)))))

    def _next_key(self) -> str:
        self._keys += 1
        return f"{self._seed}-{self._keys}"

    def _remember(self, session: OnSale, key: str, operation: Operation) -> None:
        """Keeps a hold that was granted, once."""
        known = {held.reservation for held in self._held}
        if operation.succeeded and operation.reservation and operation.reservation not in known:
            self._ground.recent.append((self._customer.id, operation.reservation))
            expires_at = datetime.fromisoformat(operation.reply["expiresAt"]).timestamp()
            self._held.append(Held(session, operation.seats, key, operation.reservation, expires_at))
            del self._held[:-KEPT_MAX]

    async def _pay(self) -> None:
        held = self._take()
        if held is None:
            return
        if self._ground.sold[held.session.id] + len(held.seats) > held.session.sold_max:
            await self.device.send_until_known(RELEASE, reservation=held.reservation)
            return
        self._ground.sold[held.session.id] += len(held.seats)
        operation = await self.device.send_until_known(PAY, reservation=held.reservation)
        if operation.changed_nothing:
            self._ground.sold[held.session.id] -= len(held.seats)

    async def _release(self) -> None:
        if (held := self._take()) is not None:
            await self.device.send_until_known(RELEASE, reservation=held.reservation)

    async def _come_late(self) -> None:
        """Pays when the deadline is about to pass, or has just passed."""
        held = self._take()
        if held is None or self._ground.sold[held.session.id] + len(held.seats) > held.session.sold_max:
            return
        self._ground.sold[held.session.id] += len(held.seats)
        due = held.expires_at + self._chance.uniform(-EARLY_SECONDS_MAX, LATE_SECONDS_MAX)
        await asyncio.sleep(max(0.0, due - time.time()))
        operation = await self.device.send_until_known(PAY, reservation=held.reservation)
        if operation.changed_nothing:
            self._ground.sold[held.session.id] -= len(held.seats)

    async def _pay_twice(self) -> None:
        """Settles a past hold again: pays it twice, releases it after the payment, or pays it after the release."""
        if self._past:
            held = self._chance.choice(self._past[-KEPT_MAX:])
            if self._ground.sold[held.session.id] < held.session.sold_max:
                kind = self._chance.choice((PAY, RELEASE))
                await self.device.send(kind, reservation=held.reservation)

    async def _replay(self) -> None:
        known = (self._held + self._past)[-KEPT_MAX:]
        if known:
            held = self._chance.choice(known)
            await self.device.send(HOLD, session=held.session.id, seats=held.seats, key=held.key)

    async def _reuse_key(self) -> None:
        """The same key for other seats."""
        known = (self._held + self._past)[-KEPT_MAX:]
        if known:
            held = self._chance.choice(known)
            seats = tuple(seat for seat in held.session.seats if seat not in held.seats)[:2]
            await self.device.send(HOLD, session=held.session.id, seats=seats, key=held.key)

    async def _settle_foreign(self) -> None:
        """Pays or releases another customer's hold, which must be as if it did not exist."""
        if self._ground.recent:
            owner, reservation = self._chance.choice(self._ground.recent)
            if owner != self._customer.id:
                await self.device.send(self._chance.choice((PAY, RELEASE)), reservation=reservation)

    async def _read_map(self) -> None:
        await self.device.send(MAP, session=self._chance.choice(self._ground.sessions).id)

    async def _read_list(self) -> None:
        await self.device.send(LIST, session=self._chance.choice(self._ground.sessions).id)

    async def _read_history(self) -> None:
        await self.device.send(HISTORY)

    def _take(self) -> Held | None:
        if not self._held:
            return None
        # Mostly the newest: most of the older ones have expired.
        is_newest = self._chance.random() < NEWEST_SHARE
        held = self._held.pop(-1 if is_newest else self._chance.randrange(len(self._held)))
        self._past.append(held)
        del self._past[:-KEPT_MAX]
        return held
