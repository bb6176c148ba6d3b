"""Work that is shared by all who ask at the same time, and work that waits for its turn."""

import asyncio

import pytest

from service.errors import Busy, BusyReason
from service.single_flight import SingleFlight, Turns


class Work:
    """Ends when it may, with a number or a failure."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_end = asyncio.Event()
        self.failure: Exception | None = None

    async def __call__(self) -> int:
        """How often it was begun."""
        self.begun += 1
        await self.may_end.wait()
        if self.failure:
            raise self.failure
        return self.begun


async def begin(flights: SingleFlight[str, int], work: Work, *keys: str) -> list[asyncio.Task[int]]:
    """Tasks that ask for the keys, and wait."""
    asked = [asyncio.create_task(flights.run(key, work)) for key in keys]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return asked


async def test_all_who_ask_meanwhile_share_one_result() -> None:
    flights, work = SingleFlight[str, int]("work"), Work()
    asked = await begin(flights, work, "a", "a", "a")
    work.may_end.set()
    assert await asyncio.gather(*asked) == [1, 1, 1]
    assert await flights.run("a", work) == 2, "nothing is remembered"


async def test_each_key_has_work_of_its_own() -> None:
    flights, work = SingleFlight[str, int]("work"), Work()
    asked = await begin(flights, work, "a", "b")
    work.may_end.set()
    await asyncio.gather(*asked)
    assert work.begun == 2


async def test_all_who_ask_meanwhile_share_one_failure() -> None:
    flights, work = SingleFlight[str, int]("work"), Work()
    work.failure = Busy(BusyReason.ROW_LOCK)
    asked = await begin(flights, work, "a", "a")
    work.may_end.set()
    assert await asyncio.gather(*asked, return_exceptions=True) == [work.failure] * 2
    work.failure = None
    assert await flights.run("a", work) == 2, "the failure is not remembered"


async def test_work_goes_on_when_the_first_who_asked_is_cancelled() -> None:
    flights, work = SingleFlight[str, int]("work"), Work()
    first, second = await begin(flights, work, "a", "a")
    first.cancel()
    await asyncio.wait([first])
    work.may_end.set()
    assert (first.cancelled(), await second) == (True, 1)


async def test_more_work_than_allowed_is_refused() -> None:
    flights, work = SingleFlight[str, int]("work", flights_max=1), Work()
    (asked,) = await begin(flights, work, "a")
    with pytest.raises(Busy, match="SHARED_WORK"):
        await flights.run("b", work)
    (joined,) = await begin(flights, work, "a")
    work.may_end.set()
    assert (await asked, await joined) == (1, 1)
    assert await flights.run("b", work) == 2


async def test_drain_waits_for_all_work() -> None:
    flights, work = SingleFlight[str, int]("work"), Work()
    await begin(flights, work, "a", "b")
    draining = asyncio.create_task(flights.drain())
    await asyncio.wait([draining], timeout=0.05)
    assert not draining.done()
    work.may_end.set()
    await asyncio.wait_for(draining, 10)


async def test_work_without_a_turn_in_time_is_refused() -> None:
    turns = Turns(1, wait_seconds=0.05)
    async with turns.take(BusyReason.MAP_READ):
        with pytest.raises(Busy) as refused:
            async with turns.take(BusyReason.MAP_ENCODE):
                raise AssertionError("it has no turn")
        assert refused.value.reason is BusyReason.MAP_ENCODE
        # The wait is bounded, the work is not.
        await asyncio.sleep(0.1)
    async with turns.take(BusyReason.MAP_ENCODE):
        pass
