"""The two writes as their callers know them: each is committed before its call returns.

Lock order, everywhere and also when freeing: the customers by id, then the reservations by id, then the seats by id.
`holding`, `settling` and `expiring` keep it. No other code locks or changes reservations and seats.

This module handles the failures of such a transaction. Overdue holds of the seats are ended first. A failure that
changed nothing is retried with backoff. A COMMIT without an answer is looked up. A list whose locks time out is tried
in parts, and at last one by one.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from service.backoff import delay_after
from service.database import Connection, make_durable, roll_back, transaction
from service.errors import (
    NOTHING_LOCKED,
    Busy,
    BusyReason,
    DatabaseAway,
    HoldExpired,
    OutcomeUnknown,
    SessionBusy,
    concerns_all,
)
from service.ledger import holding, settling
from service.ledger.claims import Held, HoldRequest, LockedSeat, Overdue, Render, Rules
from service.ledger.gathering import Gathering
from service.ledger.limits import Limits
from service.ledger.one_by_one import at_once, together_then_one_by_one
from service.ledger.settling import Settled, SettleRequest
from service.observability.metrics import recording
from service.reservation import State

TRIES_MAX = 3
BACKOFF_MS = 40
BACKOFF_MS_MAX = 80
LOOK_UP_BACKOFF_MS = 100
SEATS_REMEMBERED_MAX = 100_000
RETRIES = {BusyReason.COLLISION: "collision", BusyReason.SCHEMA: "schema"}
"""Labels of the metric."""

R = TypeVar("R")
A = TypeVar("A")
Write = Callable[[Connection, Sequence[R]], Coroutine[Any, Any, Sequence[A]]]


@dataclass(frozen=True, slots=True)
class Together:
    """How a list is written. Members that `are_connected` by rows do not wait one by one for a lock that did not come.
    Without `lock_timeout_ms` the connection's own limit holds.
    """

    are_connected: bool = False
    lock_timeout_ms: int | None = None


APART = Together()


class BoxOffice:
    """One per process. Concurrent requests share transactions: see `service.ledger.gathering`.

    `committed` is called after each COMMIT with events. It must not wait.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        rules: Rules,
        render: Render,
        limits: Limits,
        committed: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._committed = committed
        self._limits = limits
        self._sessions: dict[int, int] = {}
        self._write_holds = partial(holding.hold, rules=rules, render=render, note_sessions=self._note_sessions)
        self._singles = asyncio.Semaphore(limits.alone_max)
        self._holds = Gathering("hold", self._hold_together, self._hold_connected, _rows_of_hold, limits.bounds)
        self._settlements = Gathering(
            "settle", self._settle_together, self._settle_connected, _rows_of_settlement, limits.bounds
        )

    async def hold(self, request: HoldRequest) -> Held:
        """The hold, committed. Raises a Refusal, Busy, SessionBusy, DatabaseAway, OutcomeUnknown."""
        return await self._holds.ask(request, self._sessions.get(request.seat_ids[0]))

    def refusal_of_hold(self, seat_id: Callable[[], int | None]) -> Busy | SessionBusy | None:
        """Why a hold with this first seat would be refused at once. Asks for the seat only where a bound is near."""
        if not self._holds.may_refuse:
            return None
        first = seat_id()
        return None if first is None else self._holds.refusal(self._sessions.get(first))

    async def settle(self, request: SettleRequest) -> Settled:
        """The payment or release, committed. Raises a Refusal, Busy, DatabaseAway, OutcomeUnknown."""
        return await self._settlements.ask(request, None)

    async def drain(self) -> None:
        """Returns when no write is under way."""
        await self._holds.drain()
        await self._settlements.drain()

    async def hold_all(self, requests: Sequence[HoldRequest], together: Together = APART) -> list[Held | Exception]:
        """One answer for each request, in their order; an exception is what the caller should raise for it."""
        answers = await self._write(self._write_holds, requests, together)
        return list(map(_busy_if_overdue, await self._take_over(requests, answers, together)))

    async def settle_all(
        self, requests: Sequence[SettleRequest], together: Together = APART
    ) -> list[Settled | Exception]:
        """As `hold_all`."""
        return [*await self._write(settling.settle, requests, together)]

    async def _hold_together(self, requests: Sequence[HoldRequest]) -> list[Held | Exception | None]:
        briefly = self._connected(patiently=False)
        answers = await self._write_together(self._write_holds, requests, briefly.lock_timeout_ms)
        answers = await self._take_over(requests, answers, briefly, briefly)
        return [None if isinstance(answer, Overdue) or _is_locked(answer) else answer for answer in answers]

    async def _settle_together(self, requests: Sequence[SettleRequest]) -> Sequence[Settled | Exception]:
        return await self._write_together(settling.settle, requests, self._limits.list_lock_timeout_ms)

    async def _hold_connected(
        self,
        requests: Sequence[HoldRequest],
        patiently: bool,  # noqa: FBT001 - Gathering gives it
    ) -> list[Held | Exception]:
        return await self.hold_all(requests, self._connected(patiently=patiently))

    async def _settle_connected(
        self,
        requests: Sequence[SettleRequest],
        patiently: bool,  # noqa: FBT001 - Gathering gives it
    ) -> list[Settled | Exception]:
        return await self.settle_all(requests, self._connected(patiently=patiently))

    def _connected(self, *, patiently: bool) -> Together:
        return Together(are_connected=True, lock_timeout_ms=None if patiently else self._limits.list_lock_timeout_ms)

    def _note_sessions(self, seats: Mapping[int, LockedSeat]) -> None:
        """Remembers the sessions of these seats, so that the holds of sessions can take turns."""
        if len(self._sessions) > SEATS_REMEMBERED_MAX:
            for seat_id in list(islice(self._sessions, SEATS_REMEMBERED_MAX // 2)):
                del self._sessions[seat_id]
        self._sessions.update((seat_id, seat.session_id) for seat_id, seat in seats.items())

    async def _take_over(
        self,
        requests: Sequence[HoldRequest],
        answers: Sequence[Held | Overdue | Exception],
        together: Together,
        ending: Together = APART,
    ) -> list[Held | Overdue | Exception]:
        """The answers. Members that met overdue holds are answered again, after these holds are ended."""
        overdue = {id_ for answer in answers if isinstance(answer, Overdue) for id_ in answer.reservation_ids}
        if not overdue:
            return [*answers]
        recording.retried("overdue")
        await self._expire(sorted(overdue), ending)
        delayed = [request for request, answer in zip(requests, answers, strict=True) if isinstance(answer, Overdue)]
        again = iter(await self._write(self._write_holds, delayed, together))
        return [next(again) if isinstance(answer, Overdue) else answer for answer in answers]

    async def _expire(self, reservation_ids: Iterable[UUID], how: Together) -> None:
        answers = await self.settle_all([SettleRequest(id_, None, State.EXPIRED) for id_ in reservation_ids], how)
        changed = [answer.reservation for answer in answers if isinstance(answer, Settled) and answer.changed]
        recording.holds_ended("buyer", changed)

    async def _write(self, write: Write[R, A], requests: Sequence[R], how: Together) -> list[A | Exception]:
        """The answers of one transaction, or of one for each request where the first fails: a request's lock or data
        can't fail its neighbours. Where PostgreSQL is unavailable they fail together.
        """

        def must_raise(error: Exception) -> bool:
            return len(requests) == 1 or concerns_all(error) or (how.are_connected and isinstance(error, Busy))

        together = partial(self._write_together, write, requests, how.lock_timeout_ms)
        one_by_one = partial(self._write_one_by_one, write, requests)
        try:
            return list(await together_then_one_by_one(together, one_by_one, must_raise))
        except Exception as error:  # noqa: BLE001 - it becomes the answer, which the caller raises
            return [error for _ in requests]

    async def _write_one_by_one(
        self, write: Write[R, A], requests: Sequence[R], _failure: Exception
    ) -> Sequence[A | Exception]:
        async def write_alone(request: R) -> A | Exception:
            async with self._singles:
                (answer,) = await self._write_together(write, [request])
            return answer

        recording.retried("one_by_one")
        return await at_once(requests, write_alone)

    async def _write_together(
        self, write: Write[R, A], requests: Sequence[R], lock_timeout_ms: int | None = None
    ) -> Sequence[A | Exception]:
        try:
            return await self._try_to_write(write, requests, lock_timeout_ms)
        except OutcomeUnknown:
            recording.retried("outcome_unknown")
            return await self._look_up(write, requests)

    async def _try_to_write(
        self, write: Write[R, A], requests: Sequence[R], lock_timeout_ms: int | None
    ) -> Sequence[A]:
        for n in range(1, TRIES_MAX):
            try:
                return await self._write_once(write, requests, lock_timeout_ms)
            except (DatabaseAway, Busy) as error:
                # Waiting again for a lock or a connection would only make the queue longer.
                if isinstance(error, Busy) and error.reason not in NOTHING_LOCKED:
                    raise
                recording.retried(RETRIES[error.reason] if isinstance(error, Busy) else "away")
                await asyncio.sleep(delay_after(n, BACKOFF_MS, BACKOFF_MS_MAX, jitter=True) / 1000)
        return await self._write_once(write, requests, lock_timeout_ms)

    async def _write_once(
        self, write: Write[R, A], requests: Sequence[R], lock_timeout_ms: int | None = None
    ) -> Sequence[A]:
        async with transaction(self._engine, lock_timeout_ms) as connection:
            answers = await write(connection, requests)
            has_changed = any(map(_has_changed, answers))
            if not has_changed:
                # An earlier request made this change, and its COMMIT may not have reached the standby.
                await (make_durable if any(map(_acknowledges, answers)) else roll_back)(connection)
        if has_changed:
            self._committed()
        return answers

    async def _look_up(self, write: Write[R, A], requests: Sequence[R]) -> Sequence[A | Exception]:
        """The outcome of a COMMIT whose answer did not come: the same requests again, on another connection.

        They take the same first lock, so they wait for the lost backend, and then find its changes or make them. A
        request whose lock times out must not hide the outcome of the others.
        """
        deadline = asyncio.get_running_loop().time() + self._limits.outcome_wait_ms / 1000
        try:
            return await self._write_once(write, requests)
        except Exception:  # noqa: BLE001 - the first COMMIT is unknown, whatever happens here
            return await at_once(requests, partial(self._look_up_alone, write, deadline))

    async def _look_up_alone(self, write: Write[R, A], deadline: float, request: R) -> A:
        """The answer. Raises OutcomeUnknown where it can't be found in time."""
        while True:
            try:
                async with self._singles:
                    (answer,) = await self._write_once(write, [request])
            except Exception as error:
                if asyncio.get_running_loop().time() >= deadline:
                    raise OutcomeUnknown from error
                await asyncio.sleep(delay_after(1, LOOK_UP_BACKOFF_MS, LOOK_UP_BACKOFF_MS, jitter=True) / 1000)
            else:
                return answer


def _rows_of_hold(request: HoldRequest) -> tuple[UUID | int, ...]:
    return request.customer_id, *request.seat_ids


def _rows_of_settlement(request: SettleRequest) -> tuple[UUID]:
    return (request.reservation_id,)


def _is_locked(answer: object) -> bool:
    return isinstance(answer, Busy) and answer.reason is BusyReason.ROW_LOCK


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
