"""One device of a customer: it sends requests, records each with its answer, and repeats those without an outcome."""

import asyncio
import random
import time
from typing import Any

from load.campaign.ground import Customer, Field
from load.campaign.history import HOLD, WRITES, Operation
from load.campaign.requests import recorded, request_of
from load.campaign.wire import Wire

TRIES_MAX = 5
TIMEOUT_SECONDS = 12.0
HANG_UP_SHARE = 0.02
UNAVAILABLE = 503


class Device:
    """It has one connection to each API, and chooses one of them for each request."""

    def __init__(self, ground: Field, customer: Customer, chance: random.Random) -> None:
        self._ground = ground
        self._customer = customer
        self._chance = chance
        self.wires = [Wire(url, TIMEOUT_SECONDS) for url in ground.urls]
        self._open: dict[tuple[object, ...], tuple[Operation, int]] = {}
        """The open requests, each with the time when the last of them was given up."""

    def close(self) -> None:
        """Hangs up."""
        for wire in self.wires:
            wire.close()

    async def resolve(self) -> None:
        """Repeats each write with an unknown outcome, as its customer would, until the outcome is known."""
        for operation, _ in list(self._open.values()):
            if operation.kind == HOLD:
                asked = {"session": operation.session, "seats": operation.seats, "key": operation.key}
                await self.send_until_known(HOLD, **asked)
            else:
                await self.send_until_known(operation.kind, reservation=operation.reservation)

    async def send_until_known(self, kind: str, **facts: Any) -> Operation:
        """Repeats the request while its outcome is unknown or the service is busy, as a good client does."""
        for n in range(TRIES_MAX):
            hang_up = n == 0 and self._chance.random() < HANG_UP_SHARE
            operation = await self.send(kind, hang_up=hang_up, **facts)
            if not _is_open(operation):
                break
            await asyncio.sleep(self._chance.uniform(0.05, 0.2) * 2**n)
        return operation

    async def send(self, kind: str, *, hang_up: bool = False, wire: Wire | None = None, **facts: Any) -> Operation:
        """One request; `wire` is the connection to use instead of a random one."""
        method, path, body = request_of(kind, facts)
        headers = {"Authorization": f"Bearer {self._customer.token}"}
        if body:
            headers["Content-Type"] = "application/json"
        if facts.get("key"):
            headers["Idempotency-Key"] = facts["key"]
        number = self._ground.next_number()
        wire = wire or self._chance.choice(self.wires)
        invoked = time.time_ns() // 1_000
        answer = await wire.ask(method, path, headers, body, hang_up=hang_up)
        answered = time.time_ns() // 1_000
        operation = Operation(number, kind, self._customer.id, invoked, hang_up=hang_up, **facts)
        if answer is not None:
            operation = recorded(operation, answered, answer)
        self._ground.record(operation)
        if kind in WRITES:
            self._note_outcome(operation, answered)
        return operation

    def _note_outcome(self, operation: Operation, ended: int) -> None:
        """The answer to a twin that was sent before another one was given up does not resolve that one."""
        _, given_up = self._open.get(operation.question, (None, 0))
        if _is_open(operation):
            self._open[operation.question] = operation, ended
        elif given_up <= operation.invoked:
            self._open.pop(operation.question, None)


def _is_open(operation: Operation) -> bool:
    """Whether a good client repeats the request."""
    return operation.is_unknown or operation.status == UNAVAILABLE
