"""The bodies of large maps: encoded beside the event loop, and once for all who wait."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest

from service.api import mapbody
from service.api.mapbody import SEATS_AT_ONCE_MAX, MapBodies, Seats
from service.seatmap import SeatMap
from service.seatreads import Layout

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
