"""The bodies of large maps: encoded beside the event loop, and once for all who wait."""

import asyncio
import gzip
import threading
from datetime import UTC, datetime, timedelta

import pytest

from service.api import mapbody
from service.api.mapbody import PACKINGS_MAX, SEATS_AT_ONCE_MAX, MapBodies, Seats
from service.errors import Busy
from service.seatmap import SeatMap
from service.seatreads import Layout
from tests.waiting import until

NOW = datetime(2030, 6, 1, 18, tzinfo=UTC)
LARGE = SEATS_AT_ONCE_MAX + 1


def layout_of(seats: int) -> Layout:
    """So many seats."""
    return Layout("history", range(1, seats + 1), [f"A{n}" for n in range(seats)], [1250] * seats, "EUR", 0)


def map_at(layout: Layout, seconds: int) -> SeatMap:
    """Each second one more seat is sold."""
    states = b"S" * seconds + b"A" * (len(layout.seat_ids) - seconds)
    return SeatMap(layout, states, "redis", NOW + timedelta(seconds=seconds), 0)


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


async def test_bodies_of_five_of_the_largest_sessions_are_remembered_together(encoders: list[threading.Thread]) -> None:
    bodies, layout = MapBodies(), layout_of(100_000)
    for session_id in [1, 2, 3, 4, 5] * 2:
        await bodies.seats(session_id, map_at(layout, 0))
    assert len(encoders) == 5


async def test_few_maps_are_compressed_at_once_and_nobody_waits_long_for_a_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pack, goes_on, at_work = mapbody._pack, threading.Event(), []

    def pack_slowly(plain: bytes) -> bytes:
        at_work.append(plain)
        goes_on.wait(30)
        return pack(plain)

    monkeypatch.setattr(mapbody, "_pack", pack_slowly)
    monkeypatch.setattr(mapbody, "PACK_WAIT_SECONDS", 0.05)
    bodies = MapBodies()
    known = [await bodies.seats(session_id, map_at(layout_of(16), 0)) for session_id in range(PACKINGS_MAX + 1)]
    first = [asyncio.create_task(bodies.gzip(seats, b"}")) for seats in known[:PACKINGS_MAX]]

    async def all_turns_are_taken() -> bool:
        return len(at_work) == PACKINGS_MAX

    await until(all_turns_are_taken, "as many compressions as there may be")
    try:
        for seats in (known[-1], known[0]):
            with pytest.raises(Busy):
                await bodies.gzip(seats, b"}")
        assert len(at_work) == PACKINGS_MAX
    finally:
        goes_on.set()
    for seats, body in zip(known, [*await asyncio.gather(*first), await bodies.gzip(known[-1], b"}")], strict=True):
        assert gzip.decompress(body) == seats.plain + b"}"
