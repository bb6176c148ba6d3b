"""The projector after foreign writes to its keys in Redis."""

import pytest

from service.database import Connection
from service.errors import CacheAway
from service.seatmap.keys import BUMP, PLACE, WATERMARK
from service.settings import Settings
from tests.stage.factories import make_session
from tests.stage.seat_maps import NO_MARKS, Projection, write_no_mark


@pytest.mark.parametrize("no_mark", NO_MARKS)
async def test_a_damaged_watermark_is_replaced_by_the_next_step(
    projection: Projection, sql: Connection, settings: Settings, no_mark: str
) -> None:
    on_sale = await make_session(sql, settings)
    await projection.step()
    assert (await projection.get(on_sale)).source == "redis"
    await write_no_mark(projection.redis, no_mark)
    assert (await projection.get(on_sale)).source == "postgresql"
    assert await projection.maps.counts([on_sale.id]) == {}
    await projection.step()
    assert (await projection.get(on_sale)).source == "redis"
    assert await projection.maps.counts([on_sale.id]) == {on_sale.id: (0, 0)}


@pytest.mark.parametrize("no_place", [b"x", b"history/run|x", b"history/run|", b"\xff|1"])
async def test_a_damaged_place_is_overwritten_by_the_next_step(projection: Projection, no_place: bytes) -> None:
    await projection.step()
    place = await projection.redis.get(PLACE)
    await projection.redis.set(PLACE, no_place)
    await projection.step()
    assert await projection.redis.get(PLACE) == place


async def test_without_a_valid_operators_counter_no_map_is_fresh(projection: Projection) -> None:
    await projection.redis.set(BUMP, "x")
    with pytest.raises(CacheAway, match="rowlock:bump is not a number"):
        await projection.step()
    assert await projection.redis.get(WATERMARK) is None
    await projection.redis.set(BUMP, 2)
    await projection.step()
    assert (await projection.epoch()).endswith("-2")


async def test_an_operators_counter_of_another_type_is_invalid(projection: Projection) -> None:
    await projection.redis.rpush(BUMP, "2")
    with pytest.raises(CacheAway, match="WRONGTYPE"):
        await projection.step()
    assert await projection.redis.get(WATERMARK) is None
