"""The projector: it writes changes to Redis, may repeat every step, and is the only one that works at a time."""

import pytest

from dev.containers import Container
from dev.servers import Redis
from service.database import Connection
from service.ledger.settling import SettleRequest
from service.reservation import State
from service.seatmap.encoding import Change
from service.seatmap.keys import WATERMARK
from service.seatmap.updating import MapUpdates
from service.settings import Settings
from tests.stage.factories import hold_of, make_customer, make_customers, make_session
from tests.stage.forcing import give, give_all, make_box_office
from tests.stage.seat_maps import Projection, cursor_of, projecting, stored_states, with_redis
from tests.stage.waiting import until

READ_LEASED_UNTIL = """
select leased_until
from cursors
where name = 'cache'
"""


@pytest.mark.parametrize("numbered", [True, False])
async def test_a_committed_change_is_in_the_map_with_or_without_number(
    projection: Projection, sql: Connection, settings: Settings, *, numbered: bool
) -> None:
    customer, other = await make_customers(sql, settings, 2)
    on_sale = await make_session(sql, settings)
    await projection.step()
    assert (await projection.get(on_sale)).source == "redis"
    held, paid = [await give(sql, customer, seat) for seat in on_sale.seat_ids[:2]]
    await give(sql, other, on_sale.seat_ids[-1])
    box_office = make_box_office(projection.engine)
    await box_office.settle_all([SettleRequest(paid, customer.id, State.CONFIRMED)])
    await box_office.settle_all([SettleRequest(held, customer.id, State.CANCELLED)])
    if numbered:
        await projection.number()
    await projection.step()
    seat_map = await projection.get(on_sale)
    assert (seat_map.source, seat_map.states) == ("redis", b"AS" + b"A" * 13 + b"H")
    assert seat_map.states == await stored_states(sql, on_sale)
    assert await cursor_of(sql) == (await sql.fetchval("select max(number) from events") if numbered else 0)


async def test_maps_are_not_fresh_before_the_last_of_several_batches(
    settings: Settings, redis: Redis | Container, sql: Connection
) -> None:
    small = with_redis(settings.database_url.get_secret_value(), redis, projector_batch_max=3, map_fresh_ms=60_000)
    customer = await make_customer(sql, settings)
    on_sale = await make_session(sql, settings)
    async with projecting(small) as projection:
        await projection.step()
        await projection.get(on_sale)
        await give_all(sql, [hold_of(customer, seat) for seat in on_sale.seat_ids[:7]])
        # The new session is the first of eight events.
        await projection.number()
        mark = await projection.redis.get(WATERMARK)
        assert [await projection.projector.step() for _ in range(2)] == [0, 0]
        assert await projection.redis.get(WATERMARK) == mark
        assert await projection.projector.step() > 0
        assert await projection.redis.get(WATERMARK) > mark
        assert (await projection.get(on_sale)).states == b"H" * 7 + b"A" * 9


async def test_maps_are_not_fresh_when_unnumbered_events_fill_a_batch(
    settings: Settings, redis: Redis | Container, sql: Connection
) -> None:
    small = with_redis(settings.database_url.get_secret_value(), redis, projector_batch_max=3)
    customer = await make_customer(sql, settings)
    on_sale = await make_session(sql, settings)
    await give_all(sql, [hold_of(customer, seat) for seat in on_sale.seat_ids[:3]])
    async with projecting(small) as projection:
        assert await projection.projector.step() == 0
        assert await projection.redis.get(WATERMARK) is None


async def test_the_projector_creates_no_map(projection: Projection, sql: Connection, settings: Settings) -> None:
    on_sale = await make_session(sql, settings)
    await give(sql, await make_customer(sql, settings), on_sale.seat_ids[0])
    await projection.step()
    assert await projection.redis.keys(f"*:{on_sale.id}:*") == []


async def test_another_projector_takes_over_when_the_lease_ends(
    projection: Projection, sql: Connection, settings: Settings, redis: Redis | Container
) -> None:
    await projection.step()
    mark = await projection.redis.get(WATERMARK)
    url = settings.database_url.get_secret_value()
    async with projecting(with_redis(url, redis, map_fresh_ms=60_000, lease_ms=60_000), "other") as other:
        assert await other.projector.step() > 0
        assert await projection.redis.get(WATERMARK) == mark, "the other one only waits"
        await sql.execute("update cursors set leased_until = clock_timestamp() where name = 'cache'")
        await other.projector.step()
        assert await projection.redis.get(WATERMARK) > mark
        await other.projector.close()
        assert await sql.fetchval("select owner from cursors where name = 'cache'") is None


async def test_a_projector_that_lost_its_lease_moves_no_cursor(
    projection: Projection, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_sale = await make_session(sql, settings)
    await projection.step()
    await projection.get(on_sale)
    await give(sql, await make_customer(sql, settings), on_sale.seat_ids[0])
    await projection.number()
    before, apply = await cursor_of(sql), MapUpdates.apply

    async def apply_for_too_long(updates: MapUpdates, epoch: str, changes: dict[int, list[Change]]) -> None:
        await apply(updates, epoch, changes)
        await sql.execute("update cursors set owner = 'another' where name = 'cache'")

    monkeypatch.setattr(MapUpdates, "apply", apply_for_too_long)
    await projection.step()
    assert await cursor_of(sql) == before
    assert (await projection.get(on_sale)).states[:1] == b"H"


async def test_a_projector_renews_its_lease_while_it_works(
    projection: Projection, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_sale = await make_session(sql, settings)
    await projection.step()
    await give(sql, await make_customer(sql, settings), on_sale.seat_ids[0])
    await projection.number()
    apply, number = MapUpdates.apply, await sql.fetchval("select max(number) from events")

    async def apply_until_the_lease_is_renewed(
        updates: MapUpdates, epoch: str, changes: dict[int, list[Change]]
    ) -> None:
        await apply(updates, epoch, changes)
        taken = await sql.fetchval(READ_LEASED_UNTIL)

        async def renewed() -> bool:
            return bool(await sql.fetchval(READ_LEASED_UNTIL) > taken)

        await until(renewed, "a lease that was renewed")

    monkeypatch.setattr(MapUpdates, "apply", apply_until_the_lease_is_renewed)
    await projection.step()
    assert await cursor_of(sql) == number
