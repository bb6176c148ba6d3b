"""Gathers concurrent requests of one kind into lists: the members of a list share a transaction and its COMMIT.

There is no timer. A request that finds a free lane is written at once, as a list of one. Requests that come while all
lanes are busy wait, and the next free lane takes them together. So lists grow with the load, and an idle process gains
no latency.

Groups take turns: a list takes one member of each group in turn, so that a session with many requests does not delay
the others. Where a list fails, or does not finish a member, those of its members that share rows go on together,
outside the lane. They wait briefly for their locks once more, unless they are the whole list. Only members whose lock
does not come then wait for it patiently, in a queue of their own: a locked seat delays only the requests that want it.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from service.errors import Busy, BusyReason, SessionBusy, concerns_all
from service.ledger.connected import connected_by
from service.observability import tracing
from service.observability.metrics import catalogue, recording
from service.single_flight import Turns


class OfReservation(Protocol):
    """A request to hold or to settle."""

    @property
    def reservation_id(self) -> UUID:
        """Names the request in traces."""


R = TypeVar("R", bound=OfReservation)
A = TypeVar("A")
T = TypeVar("T")

LANES = 2
"""Lists in progress at the same time. One is written while the other waits for its COMMIT."""
MEMBERS_MAX = 128
"""Members of a list. A longer one gains little: PostgreSQL's work for each member is nearly constant from 64 on."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Requests in progress at most, of all groups and of one; the longest wait, for a lane and outside of it; lists
    outside the lanes at once.
    """

    in_progress_max: int
    group_max: int
    wait_seconds: float
    alone_max: int


@dataclass(slots=True, eq=False)
class Member(Generic[R, A]):
    """A request that waits for its answer. `since` is the loop's time."""

    request: R
    group: int | None
    since: float
    context: Context
    traceparent: str | None
    answer: "asyncio.Future[A | Exception]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def give(self, answer: A | Exception) -> None:
        """The caller may have gone."""
        if not self.answer.done():
            self.answer.set_result(answer)


class Gathering(Generic[R, A]):
    """The lists of one kind of request.

    `together` writes a list in one transaction; it raises where the transaction failed, and returns None for a member
    that is not finished. `whole` writes a list to its end, with an answer for each member; its second argument is
    whether it waits patiently for locks. `rows` names the rows that a request locks.
    """

    def __init__(
        self,
        name: str,
        together: Callable[[Sequence[R]], Awaitable[Sequence[A | Exception | None]]],
        whole: Callable[[Sequence[R], bool], Awaitable[Sequence[A | Exception]]],
        rows: Callable[[R], Iterable[Hashable]],
        bounds: Bounds,
    ) -> None:
        self._name = name
        self._together, self._whole, self._rows = together, whole, rows
        self._bounds = bounds
        self._waiting: OrderedDict[int | None, deque[Member[R, A]]] = OrderedDict()
        self._in_group: dict[int | None, int] = {}
        self._in_progress = 0
        self._lanes = 0
        self._brief = Turns(bounds.alone_max, bounds.wait_seconds)
        self._patient = Turns(bounds.alone_max, bounds.wait_seconds)
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def ask(self, request: R, group: int | None) -> A:
        """The answer to the request. A caller that is cancelled does not stop a write that has begun.

        Raises the request's refusal, and Busy: at once where too many are in progress, later where no lane was free.
        """
        if refusal := self.refusal(group):
            raise refusal
        member: Member[R, A] = Member(
            request, group, asyncio.get_running_loop().time(), copy_context(), tracing.traceparent_of()
        )
        self._enter(member)
        answer = await member.answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def may_refuse(self) -> bool:
        """Whether a bound can be reached at all, of one group or of all. False costs next to nothing."""
        return self._in_progress >= min(self._bounds.in_progress_max, self._bounds.group_max)

    def refusal(self, group: int | None) -> Busy | SessionBusy | None:
        """Why a request of this group would be refused at once."""
        if self._in_progress >= self._bounds.in_progress_max:
            return Busy(BusyReason.WRITE_QUEUE)
        if group is not None and self._in_group.get(group, 0) >= self._bounds.group_max:
            return SessionBusy(group)
        return None

    async def drain(self) -> None:
        """Returns when no write is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _enter(self, member: Member[R, A]) -> None:
        self._in_progress += 1
        self._in_group[member.group] = self._in_group.get(member.group, 0) + 1
        catalogue.WRITES_IN_PROGRESS.of().inc()
        member.answer.add_done_callback(lambda _: self._leave(member.group))
        self._waiting.setdefault(member.group, deque()).append(member)
        if self._lanes < LANES:
            self._lanes += 1
            self._start(self._serve())
        elif self._timer is None:
            self._set_timer(member.since)

    def _leave(self, group: int | None) -> None:
        self._in_progress -= 1
        self._in_group[group] -= 1
        if not self._in_group[group]:
            del self._in_group[group]
        catalogue.WRITES_IN_PROGRESS.of().dec()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        # Without a context of its own the work would log and trace as a part of the request that happened to start it.
        task = asyncio.create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self) -> None:
        """A lane: writes lists until nothing waits."""
        try:
            while members := self._take():
                await self._write(members)
        finally:
            # Nothing is awaited between the last look at the queue and this line, so no request is left behind.
            self._lanes -= 1

    def _take(self) -> list[Member[R, A]]:
        """The next list. Each group gives one member in turn, and goes to the end of the queue."""
        taken: list[Member[R, A]] = []
        while self._waiting and len(taken) < MEMBERS_MAX:
            group, queue = self._waiting.popitem(last=False)
            member = queue.popleft()
            if queue:
                self._waiting[group] = queue
            # The callers of the others have gone before the write began.
            if not member.answer.done():
                taken.append(member)
        return taken

    async def _write(self, members: Sequence[Member[R, A]]) -> None:
        """A list in one transaction. Members that it does not finish go on outside the lane."""
        began = time.perf_counter()
        try:
            answers = await self._in_traces(self._together, members)
            answered = list(zip(members, answers, strict=True))
        except Exception as error:  # noqa: BLE001 - it is the members' answer
            self._after_failure(members, error)
            return
        recording.list_written(self._name, len(members), time.perf_counter() - began)
        unfinished = []
        for member, answer in answered:
            if answer is None:
                unfinished.append(member)
            else:
                member.give(answer)
        self._go_on_outside(unfinished)

    def _after_failure(self, members: Sequence[Member[R, A]], error: Exception) -> None:
        """The members go on, unless the failure would be the same for all of them."""
        if concerns_all(error):
            for member in members:
                member.give(error)
            return
        recording.retried("one_by_one")
        self._go_on_outside(members, have_failed=True)

    def _go_on_outside(self, members: Sequence[Member[R, A]], *, have_failed: bool = False) -> None:
        for connected in connected_by(members, lambda member: self._rows(member.request)):
            # The whole list again would wait for the same lock.
            has_waited = have_failed and len(connected) == len(members)
            self._start(self._finish_patiently(connected) if has_waited else self._finish(connected))

    async def _finish(self, members: Sequence[Member[R, A]]) -> None:
        locked = []
        for member, answer in await self._answered(members, self._brief, patiently=False):
            if isinstance(answer, Busy) and answer.reason is BusyReason.ROW_LOCK:
                locked.append(member)
            else:
                member.give(answer)
        if locked:
            await self._finish_patiently(locked)

    async def _finish_patiently(self, members: Sequence[Member[R, A]]) -> None:
        for member, answer in await self._answered(members, self._patient, patiently=True):
            member.give(answer)

    async def _answered(
        self, members: Sequence[Member[R, A]], turns: Turns, *, patiently: bool
    ) -> list[tuple[Member[R, A], A | Exception]]:
        try:
            async with turns.take(BusyReason.WRITE_TURN):
                answers = await self._in_traces(lambda requests: self._whole(requests, patiently), members)
            return list(zip(members, answers, strict=True))
        except Exception as error:  # noqa: BLE001 - it is the members' answer
            return [(member, error) for member in members]

    async def _in_traces(self, write: Callable[[Sequence[R]], Awaitable[T]], members: Sequence[Member[R, A]]) -> T:
        """The result of `write`, recorded in the trace of a single member, or as a batch of the traced members."""
        requests = [member.request for member in members]
        traced = {member.request.reservation_id: member.traceparent for member in members if member.traceparent}
        if not traced:
            return await write(requests)
        if len(members) == 1:
            return await asyncio.create_task(_awaited(write(requests)), context=members[0].context)

        @tracing.batched(f"{self._name} list", self._name, "internal")
        async def batch() -> T:
            tracing.note_members(traced)
            return await write(requests)

        return await batch()

    def _refuse_late(self) -> None:
        """Refuses the requests that have waited for a lane for too long. Each group has its oldest first."""
        now = asyncio.get_running_loop().time()
        for group, queue in list(self._waiting.items()):
            while queue and queue[0].since + self._bounds.wait_seconds <= now:
                queue.popleft().give(Busy(BusyReason.WRITE_TURN))
            if not queue:
                del self._waiting[group]
        self._timer = None
        if self._waiting:
            self._set_timer(min(queue[0].since for queue in self._waiting.values()))

    def _set_timer(self, since: float) -> None:
        self._timer = asyncio.get_running_loop().call_at(since + self._bounds.wait_seconds, self._refuse_late)


async def _awaited(result: Awaitable[T]) -> T:
    return await result
