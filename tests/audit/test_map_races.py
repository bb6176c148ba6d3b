"""The audit of the seat maps while they, the ledger or its history change."""

import asyncio
from contextvars import Context

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.audit import maps as checking
from service.database import Connection
from service.seatmap.stored import read_history
from tests.stage.audits import faulty
from tests.stage.forcing import give
from tests.stage.map_stage import DAMAGES, Stage, after_each_read


@pytest.mark.parametrize("reads", [0, 1])
async def test_maps_of_another_history_are_not_compared(maps: Stage, engine: AsyncEngine, reads: int) -> None:
    await maps.damage(maps.first, *DAMAGES["a held seat is newer than the ledger"])
    before = iter(range(reads))

    async def read_another(connection: Connection) -> str:
        return await read_history(connection) if next(before, None) is not None else "another"

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(checking, "read_history", read_another)
        assert await maps.look(engine) == {}
    assert await maps.look(engine) == {"cache": {maps.first.id}}


async def test_a_change_between_the_two_reads_is_no_fault(maps: Stage, engine: AsyncEngine, sql: Connection) -> None:
    seats = iter(maps.first.seat_ids[5:])

    async def sell(_session_id: int) -> None:
        await give(sql, maps.customer, next(seats))
        await maps.projection.step()

    with after_each_read(sell):
        tally = await maps.check(engine)
    assert (tally.violations, tally.checked["maps"]) == ({}, 2)


async def test_a_wrong_state_between_the_two_reads_is_a_fault(
    maps: Stage, engine: AsyncEngine, sql: Connection
) -> None:
    reads: list[int] = []

    async def hold(session_id: int) -> None:
        reads.append(session_id)
        if len(reads) == 1:
            await give(sql, maps.customer, maps.first.seat_ids[5])
        await maps.projection.step()
        if len(reads) == 1:
            await maps.damage(maps.first, "states", 6, b"S")
            await maps.miscount(maps.first, held=1, sold=1)

    with after_each_read(hold):
        assert faulty(await maps.check(engine)) == {"cache": {maps.first.id}}
    assert reads == [maps.first.id, maps.first.id, maps.second.id], "the first one was compared with later seats too"


async def test_seats_are_as_of_before_they_were_read(
    maps: Stage, engine: AsyncEngine, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    seats = iter(maps.first.seat_ids[5:])

    async def after_a_sale(connection: Connection) -> str:
        # The transaction is open, and sees only what is committed when it looks for the first time. The projector has
        # another one.
        await asyncio.create_task(maps.projection.step(), context=Context())
        await give(sql, maps.customer, next(seats))
        return await read_history(connection)

    monkeypatch.setattr(checking, "read_history", after_a_sale)
    assert faulty(await maps.check(engine, map_wait_seconds=0.1)) == {}


@pytest.mark.parametrize("lost", [None, "states", "versions"], ids=["all keys", "its seats", "its versions"])
async def test_a_map_that_goes_meanwhile_is_no_fault(maps: Stage, engine: AsyncEngine, lost: str | None) -> None:
    async def go(_session_id: int) -> None:
        await maps.projection.step()
        await (maps.lose(maps.first, lost) if lost else maps.projection.redis.flushall())

    with after_each_read(go):
        assert faulty(await maps.check(engine)) == {}
