"""Expirers are killed and PostgreSQL crashes while holds end: each ends once, none early, with its event."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import RabbitMQ, Redis
from expirer.loops import keeper, queues
from service.broker.topology import PARKED_QUEUE
from service.database import Connection
from service.migrate import migrate
from service.settings import Settings
from tests.stage.broker import first_time, listening, message_count, versions_told
from tests.stage.crews import Crew, crew_of
from tests.stage.factories import hold_of, make_customer, make_overdue, make_session, make_settings
from tests.stage.forcing import give, give_all, state_of
from tests.stage.processes import Process
from tests.stage.servers import Servers
from tests.stage.verdict import broken_rules
from tests.stage.waiting import WAIT_SECONDS_MAX, until

EXPIRERS = 3
HOLDS, HOLD_SECONDS = 500, 2
WAVES, WAVE_SECONDS = 5, 0.8
"""In the midst of each wave an expirer is killed, and while it is replaced the next wave of holds is made."""
HOLDS_AT_ONCE = 5
CRASH_AT = 50
"""So many holds have ended when PostgreSQL crashes, and the others come due while it is away."""
LOOPS = {"inbox", "relay", "projector", "sequencer", "sweep", "keeper", "queues"}
"""All that say in the same words that PostgreSQL is away."""
SLOW_LOOPS_SECONDS_MAX = max(keeper.INTERVAL_SECONDS, queues.INTERVAL_SECONDS) + WAIT_SECONDS_MAX
"""Within this time keeper and queues have come round."""
OTHER_TTL_MS = 60_000

COUNT_ENDED = "select count(*) from reservations where state <> 'HELD'"

ALL_IS_TOLD = """
select not exists (select from events where number is null)
and min(number) filter (where name in ('broker', 'cache')) = min(number) filter (where name = 'log')
from cursors
"""

# The session's event, which is not part of a reservation's history.
AGE_FIRST_EVENT = """
update events
set at = at - interval '1000 hours'
where number = (select min(number) from events)
"""

IS_TRIMMED_AND_FORGOTTEN = """
select not exists (select from events where at < clock_timestamp() - interval '999 hours')
and not exists (select from hold_queues where ttl_ms = $1)
"""


async def sell(sql: Connection, settings: Settings, holds: int, over_seconds: float) -> Sequence[int]:
    """Makes this many holds of one seat each, evenly over the time. Returns the seats."""
    customer = await make_customer(sql, settings)
    seat_ids = (await make_session(sql, settings, holds)).seat_ids
    began = time.monotonic()
    for n in range(0, holds, HOLDS_AT_ONCE):
        await asyncio.sleep(began + n * over_seconds / holds - time.monotonic())
        requests = [hold_of(customer, seat_id) for seat_id in seat_ids[n : n + HOLDS_AT_ONCE]]
        await give_all(sql, requests, HOLD_SECONDS)
    return seat_ids


async def begun_at(sql: Connection) -> int:
    """Where the relay begins to read, which may be later than the inboxes take letters."""

    async def begun() -> bool:
        return bool(await sql.fetchval("select exists (select from cursors where name = 'broker')"))

    await until(begun, "the relay")
    return int(await sql.fetchval("select number from cursors where name = 'broker'"))


async def until_ended(sql: Connection, count: int) -> None:
    """Returns when this many holds have ended."""

    async def ended() -> bool:
        return int(await sql.fetchval(COUNT_ENDED)) >= count

    await until(ended, f"the end of {count} holds")


async def until_all_is_told(sql: Connection) -> None:
    """Returns when every event has its number, and relay and projector are through."""

    async def told() -> bool:
        return bool(await sql.fetchval(ALL_IS_TOLD))

    await until(told, "the end of the log")


async def assert_all_are_back(sql: Connection, seat_ids: Sequence[int]) -> None:
    """Each hold has ended once, by its deadline or later, and each seat was held and freed once."""
    rows = await sql.fetch("select state, version, count(*) from seats where id = any($1) group by 1, 2", seat_ids)
    assert [tuple(row) for row in rows] == [("AVAILABLE", 3, len(seat_ids))]
    assert await sql.fetchval("select count(*) from reservations where state <> 'EXPIRED'") == 0
    assert await sql.fetchval("select count(*) from reservations where settled_at < expires_at") == 0


async def test_killed_expirers_end_each_hold_once_and_publish_in_order(
    postgres: Postgres, sql: Connection, settings: Settings, redis: Redis | Container, rabbitmq: RabbitMQ | Container
) -> None:
    urls = {"redis_url": redis.url, "broker_url": rabbitmq.url}
    with listening(rabbitmq.url) as listener:
        async with crew_of(EXPIRERS, postgres.url(), hold_seconds=HOLD_SECONDS, **urls) as crew:
            before = await begun_at(sql)
            seat_ids = await die_in_each_wave(sql, settings, crew)
            await until_ended(sql, HOLDS)
            await until_all_is_told(sql)
        last = await sql.fetchval("select max(number) from events")
        events = await listener.until(last)
    await assert_all_are_back(sql, seat_ids)
    assert sorted(first_time(events)) == list(range(before + 1, last + 1))
    assert versions_told(events) == {seat_id: [2, 3] for seat_id in seat_ids}
    assert message_count(rabbitmq.url, PARKED_QUEUE) == 0


async def die_in_each_wave(sql: Connection, settings: Settings, crew: Crew) -> list[int]:
    """Waves of holds, each of which loses an expirer when some of its holds have ended; all seats."""
    wave = HOLDS // WAVES
    seat_ids = list(await sell(sql, settings, wave, WAVE_SECONDS))
    for n in range(1, WAVES):
        await until_ended(sql, n * wave - random.randint(wave // 4, wave * 3 // 4))
        _, sold = await asyncio.gather(crew.replace(), sell(sql, settings, wave, WAVE_SECONDS))
        seat_ids += sold
    await until_ended(sql, HOLDS - wave // 2)
    await crew.replace()
    return seat_ids


@pytest.fixture
async def fragile(servers: Servers) -> AsyncIterator[Postgres]:
    """A PostgreSQL of this test's own that may crash."""
    server = await asyncio.to_thread(servers.make, "fragile")
    try:
        await migrate(server.url())
        yield server
    finally:
        await asyncio.to_thread(server.kill)


async def test_loops_recover_from_a_postgresql_crash_and_park_nothing(
    fragile: Postgres, redis: Redis | Container, rabbitmq: RabbitMQ | Container
) -> None:
    settings = make_settings(fragile.url())
    urls = {"redis_url": redis.url, "broker_url": rabbitmq.url}
    async with crew_of(1, fragile.url(), hold_seconds=HOLD_SECONDS, log_level="info", **urls) as crew:
        (expirer,) = crew.members
        sql = await asyncpg.connect(fragile.url())
        seat_ids = await sell(sql, settings, HOLDS, HOLD_SECONDS - 1)
        await until_ended(sql, CRASH_AT)
        await sql.close()
        await asyncio.to_thread(fragile.kill)
        await until_all_have_noticed(expirer)
        await asyncio.to_thread(fragile.start)
        sql = await asyncpg.connect(fragile.url())
        await until_ended(sql, HOLDS)
        await assert_all_are_back(sql, seat_ids)
        await assert_all_loops_work(sql, settings, expirer)
    assert message_count(rabbitmq.url, PARKED_QUEUE) == 0
    assert await broken_rules(sql) == {}
    await sql.close()


def lines(expirer: Process) -> list[dict[str, Any]]:
    """The lines of its log."""
    return [json.loads(line) for line in expirer.output().splitlines()]


async def until_all_have_noticed(expirer: Process) -> None:
    """Returns when each loop, with dead letters in the inbox's hands, has found out that PostgreSQL is away."""

    async def noticed() -> bool:
        failed = {line["loop"] for line in lines(expirer) if line["event"] == "step failed"}
        return failed >= LOOPS

    await until(noticed, "the loops' complaints", SLOW_LOOPS_SECONDS_MAX)


async def assert_all_loops_work(sql: Connection, settings: Settings, expirer: Process) -> None:
    """Every loop works again after the crash: sweep and inbox each end holds; sequencer, relay and projector process
    their events; the keeper trims the log; and the queue of another time to pay is removed.
    """
    before = len(lines(expirer))
    forgotten = await make_overdue_before_its_hint(sql, settings)

    async def swept_and_taken() -> bool:
        by = [line.get("by") for line in lines(expirer)[before:] if line["event"] == "holds expired"]
        return {None, "inbox"} <= set(by) and await state_of(sql, forgotten) == "EXPIRED"

    await sell(sql, settings, 20, 1)
    await until(swept_and_taken, "holds ended by the sweep, and others by the inbox")
    await until_all_is_told(sql)
    await sql.execute(AGE_FIRST_EVENT)
    await sql.execute("insert into hold_queues (ttl_ms) values ($1)", OTHER_TTL_MS)

    async def trimmed_and_forgotten() -> bool:
        return bool(await sql.fetchval(IS_TRIMMED_AND_FORGOTTEN, OTHER_TTL_MS))

    await until(trimmed_and_forgotten, "keeper and queues", SLOW_LOOPS_SECONDS_MAX)


async def make_overdue_before_its_hint(sql: Connection, settings: Settings) -> UUID:
    """A hold whose hint RabbitMQ keeps for another minute, so that only the sweep ends it now."""
    customer, session = await make_customer(sql, settings), await make_session(sql, settings)
    held = await give(sql, customer, session.seat_ids[0], hold_seconds=60)
    await until_all_is_told(sql)
    await make_overdue(sql, held)
    return held
