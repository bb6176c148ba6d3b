"""The bodies of large maps: encoded beside the event loop, and once for all who wait."""

import asyncio
import gzip
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.api import mapbody
from service.api.mapbody import AT_WORK_MAX, SEATS_AT_ONCE_MAX, MapBodies, Seats
from service.errors import Busy, BusyReason
from service.seatmap.maps import SeatMap
from service.seatmap.stored import Layout
from tests.stage.waiting import until

NOW = datetime(2030, 6, 1, 18, tzinfo=UTC)
LARGE = SEATS_AT_ONCE_MAX + 1


def layout_of(seats: int) -> Layout:
    """So many seats."""
    return Layout("history", range(1, seats + 1), [f"A{n}" for n in range(seats)], [1250] * seats, "EUR", 0)


def map_at(layout: Layout, seconds: int) -> SeatMap:
    """Each second one more seat is sold."""
    states = b"S" * seconds + b"A" * (len(layout.seat_ids) - seconds)
    return SeatMap(layout, states, "redis", NOW + timedelta(seconds=seconds), 0)


class Slow:
    """Does a work only when it may go on, and knows how often it was begun."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self._work = work
        self.begun = 0
        self.goes_on = threading.Event()

    def __call__(self, *given: Any) -> Any:
        """The work, in the thread that does it."""
        self.begun += 1
        self.goes_on.wait(30)
        return self._work(*given)

    async def until_all_turns_are_taken(self) -> None:
        """Returns when as many are begun as may be."""

        async def are_taken() -> bool:
            return self.begun == AT_WORK_MAX

        await until(are_taken, "as many works as there may be")


@pytest.fixture
def encoders(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The threads that have encoded a body, one for each time."""
    encode, seen = mapbody._encode, []

    def encode_and_note(session_id: int, seat_map: SeatMap, known: Seats | None) -> Seats:
        seen.append(threading.current_thread())
        return encode(session_id, seat_map, known)

    monkeypatch.setattr(mapbody, "_encode", encode_and_note)
    return seen


@pytest.mark.parametrize(("seats", "is_beside"), [(SEATS_AT_ONCE_MAX, False), (LARGE, True)])
async def test_a_large_map_is_encoded_beside_the_event_loop(
    encoders: list[threading.Thread], seats: int, *, is_beside: bool
) -> None:
    await MapBodies().seats(1, map_at(layout_of(seats), 0))
    assert [thread is not threading.current_thread() for thread in encoders] == [is_beside]


async def test_who_waits_for_a_large_map_gets_the_newest_that_anybody_waits_for_and_nobody_an_older_one(
    encoders: list[threading.Thread],
) -> None:
    bodies, layout = MapBodies(), layout_of(LARGE)
    maps = [map_at(layout, seconds) for seconds in (0, 3, 2, 1)] * 5
    answers = await asyncio.gather(*(bodies.seats(1, seat_map) for seat_map in maps))
    assert len(encoders) <= 2
    assert all(answer.as_of >= seat_map.as_of for answer, seat_map in zip(answers, maps, strict=True))


async def test_who_want_the_same_large_map_at_once_have_it_encoded_and_compressed_once(
    encoders: list[threading.Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = Slow(mapbody._pack)
    pack.goes_on.set()
    monkeypatch.setattr(mapbody, "_pack", pack)
    bodies, seat_map = MapBodies(), map_at(layout_of(LARGE), 0)
    seats, *others = await asyncio.gather(*(bodies.seats(1, seat_map) for _ in range(3)))
    assert others == [seats, seats]
    assert len(encoders) == 1
    await asyncio.gather(*(bodies.gzip(seats, b"}") for _ in range(3)))
    assert pack.begun == 1


async def test_who_waits_is_not_answered_with_an_older_map_that_somebody_else_waits_for(
    encoders: list[threading.Thread],
) -> None:
    bodies, layout, lock = MapBodies(), layout_of(LARGE), asyncio.Lock()
    bodies._encoding[1] = lock
    async with lock:
        waiting = asyncio.create_task(bodies.seats(1, map_at(layout, 3)))
        await asyncio.sleep(0)
        # As where whoever had its turn before took the newest.
        bodies._wanted[1] = map_at(layout, 2)
    assert (await waiting).as_of == NOW + timedelta(seconds=3)
    assert len(encoders) == 1


async def test_bodies_of_five_of_the_largest_sessions_are_remembered_together(encoders: list[threading.Thread]) -> None:
    bodies, layout = MapBodies(), layout_of(100_000)
    for session_id in [1, 2, 3, 4, 5] * 2:
        await bodies.seats(session_id, map_at(layout, 0))
    assert len(encoders) == 5


async def test_few_maps_are_compressed_at_once_and_nobody_waits_long_for_a_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pack = Slow(mapbody._pack)
    monkeypatch.setattr(mapbody, "_pack", pack)
    monkeypatch.setattr(mapbody, "TURN_SECONDS", 0.05)
    bodies = MapBodies()
    known = [await bodies.seats(session_id, map_at(layout_of(16), 0)) for session_id in range(AT_WORK_MAX + 1)]
    first = [asyncio.create_task(bodies.gzip(seats, b"}")) for seats in known[:AT_WORK_MAX]]
    await pack.until_all_turns_are_taken()
    try:
        for seats in (known[-1], known[0]):
            with pytest.raises(Busy) as refused:
                await bodies.gzip(seats, b"}")
            assert refused.value.reason is BusyReason.MAP_COMPRESS
        assert pack.begun == AT_WORK_MAX
    finally:
        pack.goes_on.set()
    for seats, body in zip(known, [*await asyncio.gather(*first), await bodies.gzip(known[-1], b"}")], strict=True):
        assert gzip.decompress(body) == seats.plain + b"}"


async def test_few_large_maps_are_encoded_at_once_and_nobody_waits_long_for_a_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encode = Slow(mapbody._encode)
    monkeypatch.setattr(mapbody, "_encode", encode)
    monkeypatch.setattr(mapbody, "TURN_SECONDS", 0.05)
    bodies, layout = MapBodies(), layout_of(LARGE)
    first = [asyncio.create_task(bodies.seats(n, map_at(layout, 0))) for n in range(AT_WORK_MAX)]
    await encode.until_all_turns_are_taken()
    try:
        for session_id in (AT_WORK_MAX, 0):
            with pytest.raises(Busy) as refused:
                await bodies.seats(session_id, map_at(layout, 1))
            assert refused.value.reason is BusyReason.MAP_ENCODE
        assert encode.begun == AT_WORK_MAX
        assert bodies._wanted == {}
    finally:
        encode.goes_on.set()
    # What somebody waited for in vain is nobody's answer later.
    answers = [*await asyncio.gather(*first), await bodies.seats(AT_WORK_MAX, map_at(layout, 0))]
    assert {answer.as_of for answer in answers} == {NOW}
