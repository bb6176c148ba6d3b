"""The two writes as their callers know them: each call is a transaction of its own, committed before it returns.

Lock order, everywhere and also when freeing: the customers by id, then the reservations by id, then the seats by id.
`holding`, `settling` and `expiring` keep it; no other code locks or changes reservations and seats.

Here is what happens around such a transaction: overdue holds in the way are ended first, what failed without a change
is tried again with backoff, a COMMIT without an answer is looked up, a list whose locks did not come is tried one by
one, and a caller that goes away cancels nothing.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from service.database import Connection, roll_back, transaction
from service.errors import Busy, BusyReason, DatabaseAway, HoldExpired, OutcomeUnknown, Unavailable
from service.ledger import holding, settling
from service.ledger.claims import Held, HoldRequest, Overdue, Render, Rules
from service.ledger.settling import Settled, SettleRequest
from service.observability.metrics import catalogue, recording
from service.reservation import State

TRIES_MAX = 3
BACKOFF_MS = 20
LOOK_UP_BACKOFF_MS = 100

R = TypeVar("R")
T = TypeVar("T")
Write = Callable[[Connection, Sequence[R]], Coroutine[Any, Any, list[Any]]]


@dataclass(frozen=True, slots=True)
class BoxOffice:
    """One per process. Up to `writes_max` calls at once, Busy beyond; an unanswered COMMIT is looked up for
    `outcome_wait_ms`.
    """

    engine: AsyncEngine
    rules: Rules
    writes_max: int
    outcome_wait_ms: int
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    async def hold(self, requests: Sequence[HoldRequest], render: Render) -> list[Held | Exception]:
        """One answer for each request, in their order; an exception is what the caller should raise for it."""
        return await self._detached(self._hold(partial(holding.hold, rules=self.rules, render=render), requests))

    async def settle(self, requests: Sequence[SettleRequest]) -> list[Settled | Exception]:
        """One answer for each request, in their order; an exception is what the caller should raise for it."""
        return await self._detached(self._write(settling.settle, requests))

    async def drain(self) -> None:
        """Returns when no write is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _detached(self, work: Coroutine[Any, Any, T]) -> T:
        """Finishes the work even if the caller is cancelled: half a decision would keep its locks."""
        if len(self._tasks) >= self.writes_max:
            work.close()
            raise Busy(BusyReason.WRITE_QUEUE)
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        in_progress = catalogue.WRITES_IN_PROGRESS.of()
        in_progress.inc()
        task.add_done_callback(lambda _: in_progress.dec())
        return await asyncio.shield(task)

    async def _hold(self, hold: Write[HoldRequest], requests: Sequence[HoldRequest]) -> list[Held | Exception]:
        answers = await self._write(hold, requests)
        overdue = {id_ for answer in answers if isinstance(answer, Overdue) for id_ in answer.reservation_ids}
        if not overdue:
            return answers
        recording.retried("overdue")
        ended = await self._write(settling.settle, [SettleRequest(id_, None, State.EXPIRED) for id_ in sorted(overdue)])
        changed = [answer.reservation for answer in ended if isinstance(answer, Settled) and answer.changed]
        recording.holds_ended("buyer", changed)
        delayed = [r for r, answer in zip(requests, answers, strict=True) if isinstance(answer, Overdue)]
        second = iter(await self._write(hold, delayed))
        answers = [next(second) if isinstance(answer, Overdue) else answer for answer in answers]
        return [Busy(BusyReason.OVERDUE_HOLD) if isinstance(answer, Overdue) else answer for answer in answers]

    async def _write(self, write: Write[R], requests: Sequence[R]) -> list[Any]:
        """The answers of one transaction. Where it fails for many requests, each gets one of its own, so that one
        request's lock or data can't fail its neighbours; where PostgreSQL is away they fail together.
        """
        try:
            return await self._write_together(write, requests)
        except (DatabaseAway, OutcomeUnknown) as error:
            return [error for _ in requests]
        except Exception as error:  # noqa: BLE001 - it becomes the answer, which the caller raises
            if len(requests) == 1:
                return [error]
        recording.retried("one_by_one")
        # At once, so that all together wait no longer than one for its locks and a connection.
        singles = await asyncio.gather(*(self._write(write, [request]) for request in requests))
        return [answer for single in singles for answer in single]

    async def _write_together(self, write: Write[R], requests: Sequence[R]) -> list[Any]:
        try:
            return await self._try_to_write(write, requests)
        except OutcomeUnknown:
            recording.retried("outcome_unknown")
            return await self._look_up(write, requests)

    async def _try_to_write(self, write: Write[R], requests: Sequence[R]) -> list[Any]:
        for n in range(1, TRIES_MAX):
            try:
                return await self._write_once(write, requests)
            except (DatabaseAway, Busy) as error:
                # Waiting once more for what did not come in time would only make the queue longer.
                if isinstance(error, Busy) and error.reason is not BusyReason.COLLISION:
                    raise
                recording.retried("collision" if isinstance(error, Busy) else "away")
                await _back_off(BACKOFF_MS * 2**n)
        return await self._write_once(write, requests)

    async def _write_once(self, write: Write[R], requests: Sequence[R]) -> list[Any]:
        async with transaction(self.engine) as connection:
            answers = await write(connection, requests)
            if not any(map(_has_changed, answers)):
                await roll_back(connection)
        return answers

    async def _look_up(self, write: Write[R], requests: Sequence[R]) -> list[Any]:
        """The truth about a COMMIT whose answer did not come: the same requests once more, on another connection.

        They take the same first lock, so they wait for the lost backend, and then find what it did or do it. One of
        many whose lock does not come must not keep the truth from the others.
        """
        deadline = asyncio.get_running_loop().time() + self.outcome_wait_ms / 1000
        try:
            return await self._write_once(write, requests)
        except Unavailable:
            return list(await asyncio.gather(*(self._look_up_alone(write, request, deadline) for request in requests)))

    async def _look_up_alone(self, write: Write[R], request: R, deadline: float) -> Any:
        """The answer, which is OutcomeUnknown where it can't be found out in time."""
        while True:
            try:
                (answer,) = await self._write_once(write, [request])
            except Unavailable:
                if asyncio.get_running_loop().time() >= deadline:
                    return OutcomeUnknown()
                await _back_off(LOOK_UP_BACKOFF_MS)
            except Exception as error:  # noqa: BLE001 - it becomes the answer, which the caller raises
                return error
            else:
                return answer


def _has_changed(answer: object) -> bool:
    """Whether something was, or may have been, written for it: who pays too late ends the hold."""
    match answer:
        case Held(replayed=replayed):
            return not replayed
        case Settled(changed=changed):
            return changed
        case _:
            return isinstance(answer, HoldExpired)


async def _back_off(longest_ms: int) -> None:
    """Waits between half of it and all of it, so that those who collided do not meet again."""
    await asyncio.sleep(random.uniform(longest_ms / 2, longest_ms) / 1000)  # noqa: S311 - nothing secret
