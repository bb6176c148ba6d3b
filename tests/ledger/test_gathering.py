"""Gathering: concurrent requests share lists, groups take turns, and one that is stuck delays nobody for long."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

import pytest

from service.errors import Busy, BusyReason, DatabaseAway, SessionBusy
from service.ledger.connected import connected_by
from service.ledger.gathering import LANES, MEMBERS_MAX, Bounds, Gathering
from tests.stage.waiting import until

BOUNDS = Bounds(in_progress_max=1_000, group_max=1_000, wait_seconds=30, alone_max=2)


@dataclass(frozen=True, slots=True)
class Request:
    """A request of the gathering alone. `row` is the row that it wants, its own without one."""

    number: int
    row: int | None = None

    @property
    def reservation_id(self) -> UUID:
        """Its number."""
        return UUID(int=self.number)


@dataclass(slots=True)
class Writer:
    """Takes the place of PostgreSQL: writes end when the test opens the gate. It answers with the number."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    lists: list[list[int]] = field(default_factory=list)
    outside: list[list[int]] = field(default_factory=list)
    patient: list[list[int]] = field(default_factory=list)
    outer_gate: asyncio.Event | None = None
    at_once_max: int = 0
    running: int = 0
    failure: Exception | None = None
    unfinished: set[int] = field(default_factory=set)

    async def together(self, requests: Sequence[Request]) -> list[int | Exception | None]:
        """A list in one transaction."""
        self.lists.append([request.number for request in requests])
        self.running += 1
        self.at_once_max = max(self.at_once_max, self.running)
        await self.gate.wait()
        self.running -= 1
        if self.failure:
            raise self.failure
        return [None if request.number in self.unfinished else request.number for request in requests]

    async def whole(self, requests: Sequence[Request], patiently: bool) -> list[int | Exception]:  # noqa: FBT001
        """The rest of the list."""
        (self.patient if patiently else self.outside).append([request.number for request in requests])
        if self.outer_gate:
            await self.outer_gate.wait()
        return [request.number for request in requests]


def rows(request: Request) -> list[int]:
    """The row that it wants."""
    return [request.number if request.row is None else request.row]


def gathering(writer: Writer, bounds: Bounds = BOUNDS) -> Gathering[Request, int]:
    """One over the writer."""
    return Gathering("hold", writer.together, writer.whole, rows, bounds)


def ask(gathered: Gathering[Request, int], *numbers: int, group: int | None = None) -> list[asyncio.Task[int]]:
    """Requests that come in this order."""
    return [asyncio.create_task(gathered.ask(Request(number), group)) for number in numbers]


async def running(writer: Writer, lists: int) -> None:
    """Returns when so many lists have begun."""

    async def begun() -> bool:
        return len(writer.lists) >= lists

    await until(begun, "the lists")


async def busy(gathered: Gathering[Request, int], writer: Writer) -> list[asyncio.Task[int]]:
    """Occupies every lane with a list of one."""
    occupying: list[asyncio.Task[int]] = []
    for n in range(LANES):
        occupying += ask(gathered, -n)
        await running(writer, n + 1)
    return occupying


async def test_lone_request_is_written_at_once() -> None:
    writer = Writer()
    writer.gate.set()
    assert await asyncio.gather(*ask(gathering(writer), 1)) == [1]
    assert writer.lists == [[1]]


async def test_requests_that_wait_share_the_next_list() -> None:
    writer = Writer()
    gathered = gathering(writer)
    first = await busy(gathered, writer)
    waiting = ask(gathered, *range(1, MEMBERS_MAX + 11))
    await asyncio.sleep(0)
    writer.gate.set()
    await asyncio.gather(*first, *waiting)
    assert list(map(len, writer.lists)) == [1] * LANES + [MEMBERS_MAX, 10]
    assert writer.at_once_max == LANES


async def test_groups_take_turns_in_a_list() -> None:
    writer = Writer()
    gathered = gathering(writer)
    first = await busy(gathered, writer)
    waiting = ask(gathered, *range(1, 301), group=1)
    await asyncio.sleep(0)
    waiting += ask(gathered, 1_001, 1_002, group=2)
    await asyncio.sleep(0)
    writer.gate.set()
    await asyncio.gather(*first, *waiting)
    assert writer.lists[LANES][:5] == [1, 1_001, 2, 1_002, 3]


async def test_no_request_is_left_behind() -> None:
    writer, dice = Writer(), random.Random(1)
    writer.gate.set()
    gathered = gathering(writer)

    async def some(start: int) -> list[int]:
        answers = []
        for n in range(50):
            for _ in range(dice.randint(0, 3)):
                await asyncio.sleep(0)
            answers.append(await gathered.ask(Request(start + n), start % 3))
        return answers

    answers = await asyncio.wait_for(asyncio.gather(*(some(1_000 * n) for n in range(40))), 30)
    assert answers == [[1_000 * n + m for m in range(50)] for n in range(40)]
    assert writer.outside == []


async def test_too_many_requests_are_refused_at_once() -> None:
    writer = Writer()
    gathered = gathering(writer, replace(BOUNDS, in_progress_max=LANES + 1))
    asked = await busy(gathered, writer) + ask(gathered, 1)
    await asyncio.sleep(0)
    with pytest.raises(Busy) as refused:
        await gathered.ask(Request(2), None)
    assert refused.value.reason is BusyReason.WRITE_QUEUE
    writer.gate.set()
    await asyncio.gather(*asked)
    assert await gathered.ask(Request(3), None) == 3


async def test_busy_session_is_refused_and_others_are_not() -> None:
    writer = Writer()
    gathered = gathering(writer, replace(BOUNDS, group_max=2))
    asked = ask(gathered, 1, 2, group=7)
    await running(writer, 1)
    with pytest.raises(SessionBusy) as refused:
        await gathered.ask(Request(3), 7)
    assert refused.value.session_id == 7
    asked += ask(gathered, 4, group=8) + ask(gathered, 5, 6, 9)
    writer.gate.set()
    assert await asyncio.gather(*asked) == [1, 2, 4, 5, 6, 9]
    assert await gathered.ask(Request(3), 7) == 3


async def test_request_that_waits_too_long_is_refused() -> None:
    writer = Writer()
    gathered = gathering(writer, replace(BOUNDS, wait_seconds=0.05))
    asked = await busy(gathered, writer)
    with pytest.raises(Busy) as refused:
        await gathered.ask(Request(1), None)
    assert refused.value.reason is BusyReason.WRITE_TURN
    writer.gate.set()
    await asyncio.gather(*asked)
    assert all(1 not in written for written in writer.lists)


async def test_each_waiting_request_is_refused_in_its_time() -> None:
    writer = Writer()
    gathered = gathering(writer, replace(BOUNDS, wait_seconds=0.1))
    asked = await busy(gathered, writer)
    waiting = ask(gathered, 1)
    # The second one is not late when the first one is.
    await asyncio.sleep(0.05)
    waiting += ask(gathered, 2)
    refused = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
    assert [type(answer) for answer in refused] == [Busy] * 2
    writer.gate.set()
    await asyncio.gather(*asked)


async def test_caller_that_goes_while_it_waits_is_not_written() -> None:
    writer = Writer()
    gathered = gathering(writer)
    asked = await busy(gathered, writer)
    gone, stays = ask(gathered, 1, 2)
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait([gone])
    writer.gate.set()
    await asyncio.gather(*asked, stays)
    assert writer.lists[LANES:] == [[2]]


async def test_failed_list_is_tried_one_by_one() -> None:
    writer = Writer(failure=Busy(BusyReason.ROW_LOCK))
    writer.gate.set()
    gathered = gathering(writer)
    asked = await busy(gathered, writer)
    together = ask(gathered, 1, 2, 3)
    await asyncio.sleep(0)
    writer.gate.set()
    await asyncio.gather(*asked, *together)
    assert writer.outside == [[1], [2], [3]]


async def test_whole_list_does_not_wait_briefly_again() -> None:
    writer = Writer(failure=Busy(BusyReason.ROW_LOCK))
    writer.gate.set()
    assert await asyncio.gather(*ask(gathering(writer), 1)) == [1]
    assert (writer.outside, writer.patient) == ([], [[1]])


async def test_members_that_want_one_row_go_on_together() -> None:
    writer = Writer(failure=Busy(BusyReason.ROW_LOCK))
    gathered = gathering(writer)
    asked = await busy(gathered, writer)
    together = [asyncio.create_task(gathered.ask(Request(n, row), None)) for n, row in ((1, 7), (2, 8), (3, 7))]
    await asyncio.sleep(0)
    writer.gate.set()
    await asyncio.gather(*asked, *together)
    assert sorted(writer.outside)[-2:] == [[1, 3], [2]]


async def test_wait_outside_of_the_lanes_is_bounded() -> None:
    writer = Writer(failure=Busy(BusyReason.ROW_LOCK), outer_gate=asyncio.Event())
    writer.gate.set()
    gathered = gathering(writer, replace(BOUNDS, alone_max=1, wait_seconds=0.05))
    first, second = ask(gathered, 1, 2)
    with pytest.raises(Busy) as refused:
        await asyncio.wait_for(second, 10)
    assert refused.value.reason is BusyReason.WRITE_TURN
    assert writer.outer_gate is not None
    writer.outer_gate.set()
    assert await first == 1


async def test_failure_that_concerns_all_is_the_answer_of_all() -> None:
    writer = Writer(failure=DatabaseAway())
    writer.gate.set()
    answers = await asyncio.gather(*ask(gathering(writer), 1, 2, 3), return_exceptions=True)
    assert [type(answer) for answer in answers] == [DatabaseAway] * 3
    assert writer.outside == []


async def test_list_with_a_missing_answer_is_tried_one_by_one() -> None:
    writer = Writer()
    writer.gate.set()

    async def one_too_few(requests: Sequence[Request]) -> list[int | Exception | None]:
        return (await writer.together(requests))[1:]

    gathered: Gathering[Request, int] = Gathering("hold", one_too_few, writer.whole, rows, BOUNDS)
    assert await asyncio.gather(*ask(gathered, 1, 2, 3)) == [1, 2, 3]
    assert sorted(writer.outside) == [[1], [2], [3]]
    assert await asyncio.wait_for(gathered.ask(Request(4), None), 10) == 4


async def test_unfinished_member_does_not_delay_its_list() -> None:
    writer = Writer(unfinished={2})
    writer.gate.set()
    assert await asyncio.gather(*ask(gathering(writer), 1, 2, 3)) == [1, 2, 3]
    assert writer.outside == [[2]]


def test_requests_are_connected_by_the_rows_that_they_share() -> None:
    rows_of = {"a": [1, 2], "b": [3], "c": [2, 4], "d": [5], "e": [4, 5]}
    connected = connected_by(rows_of, lambda name: rows_of[name])
    assert sorted(sorted(names) for names in connected) == [["a", "c", "d", "e"], ["b"]]
