"""The two writes as their callers know them: each call is a transaction of its own, committed before it returns.

Lock order, everywhere and also when freeing: the customers by id, then the reservations by id, then the seats by id.
`holding`, `settling` and `expiring` keep it. No other code locks or changes reservations and seats.

This module handles the failures of such a transaction. Overdue holds of the seats are ended first. A failure that
changed nothing is retried with backoff. A COMMIT without an answer is looked up. A list whose locks time out is tried
one by one. A caller that is cancelled cancels no write.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from service.backoff import delay_after
from service.database import Connection, make_durable, roll_back, transaction
from service.errors import Busy, BusyReason, DatabaseAway, HoldExpired, OutcomeUnknown, Unavailable
from service.ledger import holding, settling
from service.ledger.claims import Held, HoldRequest, Overdue, Render, Rules
from service.ledger.one_by_one import at_once, together_then_one_by_one
from service.ledger.settling import Settled, SettleRequest
from service.observability.metrics import catalogue, recording
from service.reservation import State

TRIES_MAX = 3
BACKOFF_MS = 40
BACKOFF_MS_MAX = 80
LOOK_UP_BACKOFF_MS = 100

R = TypeVar("R")
A = TypeVar("A")
T = TypeVar("T")
Write = Callable[[Connection, Sequence[R]], Coroutine[Any, Any, Sequence[A]]]


@dataclass(frozen=True, slots=True)
class BoxOffice:
    """One per process. It raises Busy beyond `writes_max` calls at once, and looks up an unanswered COMMIT for
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
        return await self._detached(self._settle(requests))

    async def drain(self) -> None:
        """Returns when no write is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _detached(self, work: Coroutine[Any, Any, T]) -> T:
        """Finishes the work even if the caller is cancelled: an abandoned transaction would keep its locks."""
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

    async def _hold(
        self, hold: Write[HoldRequest, Held | Overdue | Exception], requests: Sequence[HoldRequest]
    ) -> list[Held | Exception]:
        answers = await self._write(hold, requests)
        overdue = {id_ for answer in answers if isinstance(answer, Overdue) for id_ in answer.reservation_ids}
        if overdue:
            recording.retried("overdue")
            await self._expire(sorted(overdue))
            delayed = [n for n, answer in enumerate(answers) if isinstance(answer, Overdue)]
            for n, answer in zip(delayed, await self._write(hold, [requests[n] for n in delayed]), strict=True):
                answers[n] = answer
        return list(map(_busy_if_overdue, answers))

    async def _expire(self, reservation_ids: Iterable[UUID]) -> None:
        answers = await self._settle([SettleRequest(id_, None, State.EXPIRED) for id_ in reservation_ids])
        changed = [answer.reservation for answer in answers if isinstance(answer, Settled) and answer.changed]
        recording.holds_ended("buyer", changed)

    async def _settle(self, requests: Sequence[SettleRequest]) -> list[Settled | Exception]:
        return [*await self._write(settling.settle, requests)]

    async def _write(self, write: Write[R, A], requests: Sequence[R]) -> list[A | Exception]:
        """The answers of one transaction, or of one for each request where the first fails: a request's lock or data
        can't fail its neighbours. Where PostgreSQL is unavailable they fail together.
        """

        def must_raise(error: Exception) -> bool:
            return len(requests) == 1 or isinstance(error, (DatabaseAway, OutcomeUnknown))

        together = partial(self._write_together, write, requests)
        one_by_one = partial(self._write_one_by_one, write, requests)
        try:
            return list(await together_then_one_by_one(together, one_by_one, must_raise))
        except Exception as error:  # noqa: BLE001 - it becomes the answer, which the caller raises
            return [error for _ in requests]

    async def _write_one_by_one(
        self, write: Write[R, A], requests: Sequence[R], _failure: Exception
    ) -> Sequence[A | Exception]:
        async def write_alone(request: R) -> A | Exception:
            (answer,) = await self._write_together(write, [request])
            return answer

        recording.retried("one_by_one")
        return await at_once(requests, write_alone)

    async def _write_together(self, write: Write[R, A], requests: Sequence[R]) -> Sequence[A | Exception]:
        try:
            return await self._try_to_write(write, requests)
        except OutcomeUnknown:
            recording.retried("outcome_unknown")
            return await self._look_up(write, requests)

    async def _try_to_write(self, write: Write[R, A], requests: Sequence[R]) -> Sequence[A]:
        for n in range(1, TRIES_MAX):
            try:
                return await self._write_once(write, requests)
            except (DatabaseAway, Busy) as error:
                # Waiting again for a lock or a connection would only make the queue longer.
                if isinstance(error, Busy) and error.reason is not BusyReason.COLLISION:
                    raise
                recording.retried("collision" if isinstance(error, Busy) else "away")
                await asyncio.sleep(delay_after(n, BACKOFF_MS, BACKOFF_MS_MAX, jitter=True) / 1000)
        return await self._write_once(write, requests)

    async def _write_once(self, write: Write[R, A], requests: Sequence[R]) -> Sequence[A]:
        async with transaction(self.engine) as connection:
            answers = await write(connection, requests)
            if not any(map(_has_changed, answers)):
                # An earlier request made this change, and its COMMIT may not have reached the standby.
                await (make_durable if any(map(_acknowledges, answers)) else roll_back)(connection)
        return answers

    async def _look_up(self, write: Write[R, A], requests: Sequence[R]) -> Sequence[A | Exception]:
        """The outcome of a COMMIT whose answer did not come: the same requests again, on another connection.

        They take the same first lock, so they wait for the lost backend, and then find its changes or make them. A
        request whose lock times out must not hide the outcome of the others.
        """
        deadline = asyncio.get_running_loop().time() + self.outcome_wait_ms / 1000
        try:
            return await self._write_once(write, requests)
        except Unavailable:
            return await at_once(requests, partial(self._look_up_alone, write, deadline))

    async def _look_up_alone(self, write: Write[R, A], deadline: float, request: R) -> A:
        """The answer. Raises OutcomeUnknown where it can't be found in time."""
        while True:
            try:
                (answer,) = await self._write_once(write, [request])
            except Unavailable as error:
                if asyncio.get_running_loop().time() >= deadline:
                    raise OutcomeUnknown from error
                await asyncio.sleep(delay_after(1, LOOK_UP_BACKOFF_MS, LOOK_UP_BACKOFF_MS, jitter=True) / 1000)
            else:
                return answer


def _busy_if_overdue(answer: Held | Overdue | Exception) -> Held | Exception:
    return Busy(BusyReason.OVERDUE_HOLD) if isinstance(answer, Overdue) else answer


def _acknowledges(answer: object) -> bool:
    """Whether the answer promises that a change is stored."""
    return isinstance(answer, (Held, Settled))


def _has_changed(answer: object) -> bool:
    """Whether the transaction changed, or may have changed, something for it: a late payment ends its hold."""
    match answer:
        case Held(replayed=replayed):
            return not replayed
        case Settled(changed=changed):
            return changed
        case _:
            return isinstance(answer, HoldExpired)
