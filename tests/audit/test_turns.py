"""Whose turn the next round of the self-audit is: one replica's at a time, and only that one writes its verdict."""

import asyncio

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import Postgres
from expirer.loops.audit import LOOK_SECONDS, Audit
from service.audit import verdicts
from service.audit.slices import Limits
from service.audit.verdicts import (
    LEASE_SECONDS,
    UNKNOWN,
    Found,
    Tally,
    keep_turn,
    read_verdict,
    take_turn,
    write_verdict,
)
from service.database import Connection
from service.settings import Settings
from tests.stage.audits import finish
from tests.stage.waiting import until_lock_waits

pytestmark = pytest.mark.oldest_postgresql

INTERVAL_SECONDS = 60
EMPTY = UNKNOWN.tally
FOUND = {"money": Found(1, [{"seat_id": 7}])}
END_LEASE = "update audits set leased_until = clock_timestamp()"


async def test_one_replica_audits_at_a_time(engine: AsyncEngine, sql: Connection, settings: Settings) -> None:
    first, second = Audit(engine, settings, "a", None, Limits(save_seconds=0)), Audit(engine, settings, "b", None)
    assert await first.step() == 0
    assert await second.step() == LOOK_SECONDS
    await sql.execute(END_LEASE)
    assert await second.step() == 0
    await first.step()
    assert await first.step() == LOOK_SECONDS, "it has seen that the turn is another's"
    await finish(second)
    assert (await read_verdict(sql)).finished_at is not None
    assert await first.step() == LOOK_SECONDS, "the next one is not due yet"


async def test_a_replica_that_stops_lets_another_begin_at_once(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    first, second = Audit(engine, settings, "a", None), Audit(engine, settings, "b", None)
    await first.step()
    await first.step()
    await first.close()
    assert await second.step() == 0
    await finish(second)
    assert (await read_verdict(sql)).tally.checked.keys() == {"holds", "seats", "reservations", "events"}


async def test_violations_of_a_replica_that_died_stay(sql: Connection, engine: AsyncEngine, settings: Settings) -> None:
    await take_turn(sql, "dead", INTERVAL_SECONDS)
    await keep_turn(sql, "dead", FOUND)
    await sql.execute(END_LEASE)
    second = Audit(engine, settings, "b", None, Limits(save_seconds=0))
    for _ in range(3):
        await second.step()
        assert (await read_verdict(sql)).tally.violations == FOUND
    await finish(second)
    assert (await read_verdict(sql)).tally.violations == {}


async def test_a_verdict_that_was_not_written_is_written_later(
    engine: AsyncEngine, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = Audit(engine, settings, "test", None)
    with monkeypatch.context() as patched:
        patched.setattr(verdicts, "WRITE_VERDICT", "no statement")
        with pytest.raises(asyncpg.PostgresSyntaxError):
            await finish(audit)
    assert (await read_verdict(sql)).finished_at is None
    await audit.step()
    assert (await read_verdict(sql)).finished_at is not None


@pytest.mark.parametrize("is_first", [True, False])
async def test_racing_replicas_begin_one_round(postgres: Postgres, sql: Connection, *, is_first: bool) -> None:
    if not is_first:
        await take_turn(sql, "before", INTERVAL_SECONDS)
        await sql.execute(END_LEASE)
    connections = [await asyncpg.connect(postgres.url()) for _ in range(2)]
    async with sql.transaction():
        # The last one to come finds the turn taken, or given up again.
        await (
            sql.execute("lock table audits in share mode") if is_first else sql.execute("select from audits for update")
        )
        taking = [
            asyncio.create_task(take_turn(connection, owner, INTERVAL_SECONDS))
            for connection, owner in zip(connections, "ab", strict=True)
        ]
        await until_lock_waits(sql, 2)
    assert [began for began in await asyncio.gather(*taking) if began is None] == [None]
    for connection in connections:
        await connection.close()


async def test_a_round_that_was_due_is_not_done_twice(postgres: Postgres, sql: Connection) -> None:
    began = await take_turn(sql, "a", INTERVAL_SECONDS)
    assert began is not None
    await sql.execute(END_LEASE)
    late = await asyncpg.connect(postgres.url())
    async with sql.transaction():
        await write_verdict(sql, "a", began, EMPTY)
        taking = asyncio.create_task(take_turn(late, "b", INTERVAL_SECONDS))
        await until_lock_waits(sql)
    assert await taking is None
    await late.close()


async def test_looking_for_a_turn_writes_nothing(sql: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    began = await take_turn(sql, "a", INTERVAL_SECONDS)
    assert began is not None
    with monkeypatch.context() as patched:
        patched.setattr(verdicts, "TAKE_TURN", "no statement")
        assert await take_turn(sql, "b", INTERVAL_SECONDS) is None, "it is another's"
        await write_verdict(sql, "a", began, EMPTY)
        assert await take_turn(sql, "b", INTERVAL_SECONDS) is None, "it is not due"
    assert await take_turn(sql, "b", 0) is not None, "the verdict has ended the turn"


async def test_a_late_replica_changes_neither_verdict_nor_turn(sql: Connection) -> None:
    began = await take_turn(sql, "late", INTERVAL_SECONDS)
    assert began is not None
    await sql.execute(END_LEASE)
    assert await take_turn(sql, "now", INTERVAL_SECONDS) is not None
    await write_verdict(sql, "late", began, Tally({}, FOUND, {}))
    assert not await keep_turn(sql, "late", FOUND)
    assert await read_verdict(sql) == UNKNOWN
    assert await sql.fetchval("select owner from audits where leased_until > clock_timestamp()") == "now"


async def test_a_kept_turn_lasts_for_another_lease(sql: Connection) -> None:
    await take_turn(sql, "a", INTERVAL_SECONDS)
    await sql.execute("update audits set leased_until = clock_timestamp() + interval '1 s'")
    assert await keep_turn(sql, "a", {})
    left = await sql.fetchval("select extract(epoch from leased_until - clock_timestamp()) from audits")
    assert LEASE_SECONDS - 10 < left <= LEASE_SECONDS
