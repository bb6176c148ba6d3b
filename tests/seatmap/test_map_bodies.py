"""The bodies of the maps: as the models describe them; large ones are encoded beside the event loop, once for all."""

import asyncio
import gzip
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import ParamSpec, TypeVar

import pytest

from service.api.mapbody import AT_WORK_MAX, SEATS_AT_ONCE_MAX, MapBodies
from service.api.mapjson import SeatMapReply, encode, end_of_body
from service.errors import Busy
from service.seatmap.maps import SeatMap
from service.seatmap.stored import Layout
from tests.stage.waiting import until

NOW = datetime(2030, 6, 1, 18, tzinfo=UTC)
LARGE = SEATS_AT_ONCE_MAX + 1

P = ParamSpec("P")
T = TypeVar("T")


def layout_of(seats: int) -> Layout:
    """A layout with as many seats."""
    return Layout("history", range(1, seats + 1), [f"A{n}" for n in range(seats)], [1250] * seats, "EUR", 0)


def map_at(layout: Layout, seconds: int) -> SeatMap:
    """The map as of some seconds after NOW. Each second one more seat is sold."""
    states = b"S" * seconds + b"A" * (len(layout.seat_ids) - seconds)
    return SeatMap(layout, states, "redis", NOW + timedelta(seconds=seconds), 0)


class Thread:
    """Does work beside the event loop, when it may go on, and counts it."""

    def __init__(self, *, goes_on: bool = True) -> None:
        self.begun = 0
        self.goes_on = asyncio.Event()
        if goes_on:
            self.goes_on.set()

    async def __call__(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of the work."""
        self.begun += 1
        await self.goes_on.wait()
        return work(*args, **kwargs)

    async def until_begun(self, count: int) -> None:
        """Returns when as much work has begun."""

        async def has_begun() -> bool:
            return self.begun == count

        await until(has_begun, "the work")


@pytest.mark.parametrize("microseconds", [0, 1], ids=["a whole second", "a fraction"])
def test_the_body_is_what_the_models_would_write(microseconds: int) -> None:
    placements = ['"A"', "\\", "Ä1", "座1", "💺", "%d", "%(seat_id)d", "A\u2028B", "</script>"]
    layout = Layout("history", range(7, 16), placements, [*range(8), 2**31 - 1], "EUR", 0)
    seat_map = SeatMap(layout, b"AHSAHSAHS", "redis", NOW + timedelta(microseconds=microseconds), 40)
    body = encode(3, seat_map, None).plain + end_of_body(seat_map)
    reply = SeatMapReply.model_validate_json(body)
    assert reply.model_dump_json(by_alias=True).encode() == body
    assert (reply.session_id, reply.currency, reply.source, reply.age_ms) == (3, "EUR", "redis", 40)
    seats = [(seat.seat_id, seat.placement, seat.price, seat.state[0]) for seat in reply.seats]
    assert seats == list(zip(layout.seat_ids, placements, layout.prices, "AHSAHSAHS", strict=True))
    assert reply.as_of == seat_map.as_of


@pytest.mark.parametrize(("seats", "in_thread"), [(SEATS_AT_ONCE_MAX, 0), (LARGE, 1)])
async def test_a_large_map_is_encoded_beside_the_event_loop(seats: int, in_thread: int) -> None:
    thread = Thread()
    await MapBodies(in_thread=thread).seats(1, map_at(layout_of(seats), 0))
    assert thread.begun == in_thread


async def test_all_who_wait_for_a_large_map_get_the_newest() -> None:
    thread, layout = Thread(), layout_of(LARGE)
    bodies = MapBodies(in_thread=thread)
    maps = [map_at(layout, seconds) for seconds in (0, 3, 2, 1)] * 5
    answers = await asyncio.gather(*(bodies.seats(1, seat_map) for seat_map in maps))
    assert thread.begun <= 2
    assert all(answer.as_of >= seat_map.as_of for answer, seat_map in zip(answers, maps, strict=True))


async def test_a_large_map_is_encoded_and_compressed_once_for_all() -> None:
    thread, seat_map = Thread(), map_at(layout_of(LARGE), 0)
    bodies = MapBodies(in_thread=thread)
    seats, *others = await asyncio.gather(*(bodies.seats(1, seat_map) for _ in range(3)))
    assert others == [seats, seats]
    assert thread.begun == 1
    packed = await asyncio.gather(*(bodies.gzip(seats, b"}") for _ in range(3)))
    assert {gzip.decompress(body) for body in packed} == {seats.plain + b"}"}
    assert thread.begun == 2


async def test_no_answer_is_older_than_the_requests_own_map() -> None:
    thread, layout = Thread(goes_on=False), layout_of(LARGE)
    bodies = MapBodies(in_thread=thread)
    oldest = asyncio.create_task(bodies.seats(1, map_at(layout, 0)))
    await thread.until_begun(1)
    newer = [asyncio.create_task(bodies.seats(1, map_at(layout, seconds))) for seconds in (3, 2)]
    await asyncio.sleep(0)
    thread.goes_on.set()
    answers = await asyncio.gather(oldest, *newer)
    assert [(answer.as_of - NOW).seconds for answer in answers] == [0, 3, 3]
    assert thread.begun == 2


async def test_each_answer_is_of_the_requests_own_layout() -> None:
    bodies, layouts = MapBodies(in_thread=Thread()), [layout_of(LARGE), layout_of(LARGE + 1)]
    answers = await asyncio.gather(*(bodies.seats(1, map_at(layout, 0)) for layout in layouts))
    assert [answer.layout for answer in answers] == layouts


async def test_bodies_of_five_of_the_largest_sessions_are_remembered() -> None:
    thread, layout = Thread(), layout_of(100_000)
    bodies = MapBodies(in_thread=thread)
    for session_id in [1, 2, 3, 4, 5] * 2:
        await bodies.seats(session_id, map_at(layout, 0))
    assert thread.begun == 5


async def test_a_compression_without_a_turn_in_time_is_refused() -> None:
    thread = Thread(goes_on=False)
    bodies = MapBodies(0.05, thread)
    known = [await bodies.seats(session_id, map_at(layout_of(16), 0)) for session_id in range(AT_WORK_MAX + 1)]
    first = [asyncio.create_task(bodies.gzip(seats, b"}")) for seats in known[:AT_WORK_MAX]]
    await thread.until_begun(AT_WORK_MAX)
    with pytest.raises(Busy, match="MAP_COMPRESS"):
        await bodies.gzip(known[-1], b"}")
    assert thread.begun == AT_WORK_MAX
    thread.goes_on.set()
    for seats, body in zip(known, [*await asyncio.gather(*first), await bodies.gzip(known[-1], b"}")], strict=True):
        assert gzip.decompress(body) == seats.plain + b"}"


async def test_an_encoding_without_a_turn_in_time_is_refused() -> None:
    thread, layout = Thread(goes_on=False), layout_of(LARGE)
    bodies = MapBodies(0.05, thread)
    first = [asyncio.create_task(bodies.seats(n, map_at(layout, 0))) for n in range(AT_WORK_MAX)]
    await thread.until_begun(AT_WORK_MAX)
    with pytest.raises(Busy, match="MAP_ENCODE"):
        await bodies.seats(AT_WORK_MAX, map_at(layout, 1))
    behind = asyncio.create_task(bodies.seats(0, map_at(layout, 1)))
    await asyncio.sleep(0.1)
    assert thread.begun == AT_WORK_MAX
    thread.goes_on.set()
    with pytest.raises(Busy, match="MAP_ENCODE"):
        await behind
    # A refused request leaves nothing behind: a later one gets its own map.
    answers = [*await asyncio.gather(*first), await bodies.seats(AT_WORK_MAX, map_at(layout, 0))]
    assert {answer.as_of for answer in answers} == {NOW}
