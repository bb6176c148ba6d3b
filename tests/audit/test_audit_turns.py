"""Whose turn the next round of the self-audit is: one replica's at a time, and nobody else writes its verdict."""

import asyncio

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import Postgres
from expirer.loops.audit import SAVE_SECONDS, Audit
from service.audit import verdicts
from service.audit.verdicts import LEASE_SECONDS, Place, Progress, Tally, read_standing
from service.database import Connection
from service.settings import Settings
from tests.stage.audits import last_verdict, progress
from tests.stage.factories import make_customer
from tests.stage.waiting import until_lock_waits

pytestmark = pytest.mark.oldest_postgresql

INTERVAL_SECONDS = 60
EMPTY = Tally({}, {}, {})


async def test_one_replica_audits_and_another_goes_on_when_that_one_is_silent(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    first, second = Audit(engine, settings, "a", None), Audit(engine, settings, "b", None)
    assert await first.step() == 0
    assert await second.step() > 0
    assert second._turn is None
    await sql.execute("update audits set leased_until = now() - interval '1 s'")
    await second.step()
    assert second._turn is not None
    assert first._turn is not None
    first._turn.saved -= SAVE_SECONDS
    await first.step()
    assert first._turn is None, "it has seen that the turn is another's"
    while second._turn is not None:
        await second.step()
    assert (await last_verdict(sql)).tally.violations == {}
    await second.step()
    assert second._turn is None, "the next one is not due yet"


async def test_a_round_that_was_interrupted_is_taken_up_at_once_where_it_was(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    await make_customer(sql, settings)
    first, second = Audit(engine, settings, "a", None), Audit(engine, settings, "b", None)
    await first.step()
    await first.step()
    assert first._turn is not None
    await first.close()
    await second.step()
    assert second._turn is not None
    assert second._turn.began_at == first._turn.began_at
    assert [left.name for left in second._turn.round.passes] == ["reservations", "log", "open holds"]
    await second.close()


async def test_the_round_of_a_replica_that_died_is_taken_up_where_that_one_was_seconds_before(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    dead, second = Audit(engine, settings, "a", None), Audit(engine, settings, "b", None)
    await dead.step()
    await dead.step()
    assert dead._turn is not None
    dead._turn.saved -= SAVE_SECONDS
    # Writes down that the seats are looked at, and goes on without a word.
    await dead.step()
    await dead.step()
    await sql.execute("update audits set leased_until = now()")
    await second.step()
    assert second._turn is not None
    assert [left.name for left in second._turn.round.passes] == ["reservations", "log", "open holds"]
    await second.close()


async def test_a_round_that_another_release_writes_otherwise_is_begun_anew(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    first, second = Audit(engine, settings, "a", None), Audit(engine, settings, "b", None)
    await first.step()
    await first.step()
    await first.close()
    await sql.execute("update audits set round = '{\"format\": 2}'")
    await second.step()
    assert second._turn is not None
    assert second._turn.round.passes[0].name == "seats"
    await second.close()


async def test_a_round_that_was_interrupted_before_the_last_verdict_is_begun_anew(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    first, second = Audit(engine, settings, "a", None), Audit(engine, settings, "b", None)
    await first.step()
    await first.step()
    await first.close()
    # The release before has finished one of its own, a while ago.
    await sql.execute(
        "update audits set round_began_at = now() - interval '2 h', began_at = now() - interval '1 h',"
        " finished_at = now() - interval '1 h', checked = '{}', violations = '{}'"
    )
    await second.step()
    assert second._turn is not None
    assert second._turn.round.passes[0].name == "seats"
    await second.close()


async def test_where_there_is_no_redis_a_round_that_has_come_to_the_maps_is_over(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    begun = await verdicts.take_turn(sql, "a", INTERVAL_SECONDS)
    assert begun is not None
    place = Place("maps", "7", {"last": 0, "first_at": None, "open": ""})
    await verdicts.keep_turn(sql, "a", begun.at, Progress(EMPTY, place))
    await verdicts.give_up_turn(sql, "a")
    audit = Audit(engine, settings, "b", None)
    await audit.step()
    await audit.step()
    assert (await last_verdict(sql)).began_at == begun.at


async def test_what_a_round_could_not_look_at_is_in_its_verdict_whoever_ends_it(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    begun = await verdicts.take_turn(sql, "a", INTERVAL_SECONDS)
    assert begun is not None
    await verdicts.keep_turn(sql, "a", begun.at, progress(Tally({"maps": 3}, {}, {"maps": 2})))
    await verdicts.give_up_turn(sql, "a")
    audit = Audit(engine, settings, "b", None)
    await audit.step()
    await audit.step()
    tally = (await last_verdict(sql)).tally
    assert (tally.checked, tally.unlooked) == ({"maps": 3, "holds": 0}, {"maps": 2})


async def step_on(audit: Audit) -> None:
    """Until something fails."""
    while True:
        await audit.step()


async def test_a_verdict_that_could_not_be_written_is_written_with_the_next_step(
    engine: AsyncEngine, sql: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = Audit(engine, settings, "test", None)
    with monkeypatch.context() as patched:
        patched.setattr("service.audit.verdicts.WRITE_VERDICT", "no statement")
        with pytest.raises(asyncpg.PostgresSyntaxError):
            await step_on(audit)
    assert (await read_standing(sql)).verdict is None
    await audit.step()
    assert (await last_verdict(sql)).tally.violations == {}
    await audit.close()


async def test_of_two_replicas_that_see_at_once_that_a_round_is_due_one_gets_the_turn(
    postgres: Postgres, sql: Connection
) -> None:
    await verdicts.take_turn(sql, "before", INTERVAL_SECONDS)
    await verdicts.give_up_turn(sql, "before")
    connections = [await asyncpg.connect(postgres.url()) for _ in range(2)]
    async with sql.transaction():
        await sql.execute("select from audits for update")
        taking = [
            asyncio.create_task(verdicts.take_turn(connection, owner, INTERVAL_SECONDS))
            for connection, owner in zip(connections, "ab", strict=True)
        ]
        await until_lock_waits(sql, 2)
    assert [began for began in await asyncio.gather(*taking) if began is None] == [None]
    for connection in connections:
        await connection.close()


async def test_of_two_replicas_that_begin_the_first_round_at_once_one_gets_the_turn(
    postgres: Postgres, sql: Connection
) -> None:
    other = await asyncpg.connect(postgres.url())
    async with sql.transaction():
        assert await verdicts.take_turn(sql, "a", INTERVAL_SECONDS) is not None
        taking = asyncio.create_task(verdicts.take_turn(other, "b", INTERVAL_SECONDS))
        await until_lock_waits(sql)
    assert await taking is None
    await other.close()


async def test_who_saw_that_a_round_is_due_begins_none_where_another_has_just_finished_it(
    postgres: Postgres, sql: Connection
) -> None:
    began = await verdicts.take_turn(sql, "a", INTERVAL_SECONDS)
    assert began is not None
    await sql.execute("update audits set leased_until = clock_timestamp()")
    late = await asyncpg.connect(postgres.url())
    async with sql.transaction():
        await verdicts.write_verdict(sql, "a", began.at, EMPTY)
        taking = asyncio.create_task(verdicts.take_turn(late, "b", INTERVAL_SECONDS))
        await until_lock_waits(sql)
    assert await taking is None
    await late.close()


async def test_a_look_at_what_is_not_due_or_is_another_s_writes_nothing(
    sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = await verdicts.take_turn(sql, "a", INTERVAL_SECONDS)
    assert began is not None
    with monkeypatch.context() as patched:
        patched.setattr(verdicts, "TAKE_TURN", "no statement")
        assert await verdicts.take_turn(sql, "b", INTERVAL_SECONDS) is None, "it is another's"
        await verdicts.write_verdict(sql, "a", began.at, EMPTY)
        assert await verdicts.take_turn(sql, "b", INTERVAL_SECONDS) is None, "it is not due"
    assert await verdicts.take_turn(sql, "b", 0) is not None, "who has written the verdict has ended its turn"


async def test_a_replica_whose_turn_is_another_s_by_now_neither_writes_its_verdict_nor_ends_or_keeps_the_turn(
    sql: Connection,
) -> None:
    began = await verdicts.take_turn(sql, "late", INTERVAL_SECONDS)
    assert began is not None
    await sql.execute("update audits set leased_until = clock_timestamp()")
    assert await verdicts.take_turn(sql, "now", INTERVAL_SECONDS) is not None
    await verdicts.write_verdict(sql, "late", began.at, EMPTY)
    assert (await read_standing(sql)).verdict is None
    await verdicts.give_up_turn(sql, "late")
    assert not await verdicts.keep_turn(sql, "late", began.at, progress(EMPTY))
    assert await sql.fetchval("select owner from audits where leased_until > clock_timestamp()") == "now"


async def test_who_keeps_its_turn_has_it_for_another_lease(sql: Connection) -> None:
    began = await verdicts.take_turn(sql, "a", INTERVAL_SECONDS)
    assert began is not None
    await sql.execute("update audits set leased_until = clock_timestamp() + interval '1 s'")
    assert await verdicts.keep_turn(sql, "a", began.at, progress(EMPTY))
    left = await sql.fetchval("select extract(epoch from leased_until - clock_timestamp()) from audits")
    assert LEASE_SECONDS - 10 < left <= LEASE_SECONDS
