"""A COMMIT whose answer does not come: the request is answered with the truth, or with 503 and never a guess."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import httpx
import pytest

from dev.postgres import Postgres
from service import database
from service.database import IDLE_IN_TRANSACTION_SECONDS, Connection
from service.ledger.booking import TRIES_MAX
from service.settings import Settings
from tests.conftest import serving
from tests.stage.factories import book, make_customer, make_session, make_settings, pay, release
from tests.stage.forcing import give
from tests.stage.proxy import BEGIN, Fault, Proxy, Strike, proxy_before
from tests.stage.waiting import until, until_lock_waits

Ask = Callable[[httpx.AsyncClient], Coroutine[Any, Any, httpx.Response]]

BLACK_HOLE = {"statement_timeout_ms": 1_000, "lock_timeout_ms": 500}
"""The service waits for a second more than a statement may take before it takes a connection for lost."""
WRITES = {"hold with a key": "HELD", "hold without a key": "HELD", "pay": "CONFIRMED", "release": "CANCELLED"}
"""Each write, and the state of its reservation when it is done."""
REPEATABLE = ["hold with a key", "pay", "release"]
REPEATABLES_DONE = [("CANCELLED", 1, 1), ("CONFIRMED", 1, 1), ("HELD", 1, 1)]
ALL_DONE = [("CANCELLED", 1, 1), ("CONFIRMED", 1, 1), ("HELD", 2, 1)]
SLACK_SECONDS = 6
"""For a machine that is busy with something else."""

COUNT_OUTCOMES = """
select state, count(*), (select count(*) from payments) as payments
from reservations
group by state
order by state
"""
LAST_HEARD_OF = """
select max(state_change)
from pg_stat_activity
where datname = current_database()
and state = 'idle in transaction'
"""
READ_CHANGES = """
select coalesce(settled_at, created_at)
from reservations
"""


@pytest.fixture
async def proxy(postgres: Postgres) -> AsyncIterator[Proxy]:
    """Between the service and PostgreSQL."""
    async with proxy_before(postgres) as made:
        yield made


def through(proxy: Proxy, **changes: Any) -> Settings:
    """The settings of a service that reaches PostgreSQL through the proxy."""
    return make_settings(proxy.url, **changes)


async def prepare(write: str, sql: Connection, settings: Settings) -> Ask:
    """A customer who is about to do it, and asks for it whenever the function is called."""
    customer = await make_customer(sql, settings)
    seats = (await make_session(sql, settings)).seat_ids[:2]
    if write.startswith("hold"):
        key = "the-key" if write == "hold with a key" else None
        return lambda client: book(client, customer, *seats, key=key)
    held = str(await give(sql, customer, *seats))
    ask = pay if write == "pay" else release
    return lambda client: ask(client, customer, held)


async def outcome(sql: Connection) -> list[tuple[str, int, int]]:
    """The states of the reservations, how many are in each, and how many payments there are."""
    return [tuple(row) for row in await sql.fetch(COUNT_OUTCOMES)]


def done_once(write: str) -> list[tuple[str, int, int]]:
    """The outcome when one write was done, once."""
    return [(WRITES[write], 1, 1 if write == "pay" else 0)]


def assert_unknown(reply: httpx.Response) -> None:
    """It is the answer that guesses nothing and asks for a repetition."""
    assert (reply.status_code, reply.json()["type"]) == (503, "urn:rowlock:problem:outcome-unknown")
    assert int(reply.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("fault", [Fault.CUT_BEFORE, Fault.CUT_AFTER])
async def test_write_cut_off_at_its_commit_is_done_once(
    proxy: Proxy, sql: Connection, settings: Settings, write: str, fault: Fault
) -> None:
    ask = await prepare(write, sql, settings)
    async with serving(through(proxy)) as client:
        strike = proxy.strike(fault)
        reply = await ask(client)
        assert strike.struck.is_set()
        assert reply.is_success, reply.text
        assert "Idempotency-Replayed" not in reply.headers, "the customer has asked once"
        assert await outcome(sql) == done_once(write)
        again = await ask(client)
    if write in REPEATABLE:
        assert (again.status_code, again.content) == (reply.status_code, reply.content)
    else:
        assert again.json()["type"] == "urn:rowlock:problem:seats-taken"
    assert await outcome(sql) == done_once(write)


@pytest.mark.parametrize("fault", [Fault.SWALLOW, Fault.SWALLOW_ANSWER])
async def test_write_whose_commit_is_swallowed_is_done_once(
    proxy: Proxy, sql: Connection, settings: Settings, fault: Fault
) -> None:
    asks = [await prepare(write, sql, settings) for write in WRITES]
    patient = through(proxy, outcome_wait_ms=IDLE_IN_TRANSACTION_SECONDS * 1_000 + 5_000, **BLACK_HOLE)
    async with serving(patient) as client:
        _, asked = await strike_each(proxy, fault, client, asks)
        replies = await asyncio.gather(*asked)
        assert proxy.strikes == []
        assert [reply.status_code for reply in replies] == [201, 201, 200, 200]
        assert await outcome(sql) == ALL_DONE
        again = [await ask(client) for ask in asks]
    replayed = [reply.content == first.content for reply, first in zip(again, replies, strict=True)]
    assert replayed == [True, False, True, True], "a hold without a key finds its own seats taken"
    assert await outcome(sql) == ALL_DONE


async def test_look_up_waits_for_a_commit_that_is_on_its_way(
    monkeypatch: pytest.MonkeyPatch, proxy: Proxy, sql: Connection, settings: Settings
) -> None:
    # The test says when the COMMITs arrive, however long it takes to see the look-ups wait.
    patient_engine = partial(database.create_engine, idle_in_transaction_seconds=60)
    monkeypatch.setattr("service.app.create_engine", patient_engine)
    patient = through(proxy, statement_timeout_ms=1_000, outcome_wait_ms=30_000)
    asks = [await prepare(write, sql, settings) for write in WRITES]
    before = await outcome(sql)
    async with serving(patient) as client:
        strikes, asked = await strike_each(proxy, Fault.DELAY, client, asks)
        await until_lock_waits(sql, len(asks))
        looked_up_at = await sql.fetchval("select clock_timestamp()")
        assert await outcome(sql) == before, "nothing is committed yet"
        assert not any(task.done() for task in asked), "and no client was told so"
        for strike in strikes:
            strike.let_through.set()
        replies = await asyncio.gather(*asked)
    assert [reply.status_code for reply in replies] == [201, 201, 200, 200]
    assert await outcome(sql) == ALL_DONE
    assert all(row[0] < looked_up_at for row in await sql.fetch(READ_CHANGES)), "the first COMMITs made them"


@pytest.mark.parametrize("is_done_later", [True, False], ids=["done later", "never done"])
async def test_unknown_outcome_is_503_and_repeating_reveals_it(
    proxy: Proxy, sql: Connection, settings: Settings, *, is_done_later: bool
) -> None:
    asks = [await prepare(write, sql, settings) for write in REPEATABLE]
    before = await outcome(sql)
    async with serving(through(proxy, outcome_wait_ms=100, **BLACK_HOLE)) as client:
        fault = Fault.DELAY if is_done_later else Fault.SWALLOW
        strikes, asked = await strike_each(proxy, fault, client, asks)
        for reply in await asyncio.gather(*asked):
            assert_unknown(reply)
        assert await outcome(sql) == before
        await end_of_the_first(sql, strikes)
        assert await outcome(sql) == (REPEATABLES_DONE if is_done_later else before)
        first, second = [[await ask(client) for ask in asks] for _ in range(2)]
    assert [reply.status_code for reply in first] == [201, 200, 200]
    assert [reply.content for reply in first] == [reply.content for reply in second]
    assert await outcome(sql) == REPEATABLES_DONE


async def strike_each(
    proxy: Proxy, fault: Fault, client: httpx.AsyncClient, asks: Sequence[Ask]
) -> tuple[list[Strike], list[asyncio.Task[httpx.Response]]]:
    """Each request has a transaction of its own, and the fault happens to its COMMIT."""
    strikes, asked = [], []
    for ask in asks:
        strikes.append(proxy.strike(fault))
        asked.append(asyncio.create_task(ask(client)))
        await strikes[-1].struck.wait()
    return strikes, asked


async def end_of_the_first(sql: Connection, strikes: list[Strike]) -> None:
    """The COMMITs arrive where they are only late; else PostgreSQL ends the transactions within the stated time."""
    last_heard_of = await sql.fetchval(LAST_HEARD_OF)
    assert last_heard_of is not None
    for strike in strikes:
        strike.let_through.set()

    async def ended() -> bool:
        return await sql.fetchval(LAST_HEARD_OF) is None

    await until(ended, "the end of the transactions whose COMMIT was not answered")
    took = await sql.fetchval("select clock_timestamp()") - last_heard_of
    assert took.total_seconds() < IDLE_IN_TRANSACTION_SECONDS + SLACK_SECONDS


async def test_an_unknown_outcome_is_looked_up_in_the_last_try_too(
    proxy: Proxy, sql: Connection, settings: Settings
) -> None:
    ask = await prepare("hold without a key", sql, settings)
    async with serving(through(proxy)) as client:
        for _ in range(TRIES_MAX - 1):
            proxy.strike(Fault.CUT_BEFORE, BEGIN)
        proxy.strike(Fault.CUT_AFTER)
        reply = await ask(client)
    assert reply.status_code == 201, reply.text
    assert await outcome(sql) == done_once("hold without a key")
    assert proxy.strikes == []


async def test_connection_lost_before_the_commit_changes_nothing(
    proxy: Proxy, sql: Connection, settings: Settings
) -> None:
    ask = await prepare("hold with a key", sql, settings)
    async with serving(through(proxy)) as client:
        for _ in range(TRIES_MAX):
            proxy.strike(Fault.CUT_BEFORE, BEGIN)
        reply = await ask(client)
        assert (reply.status_code, reply.json()["type"]) == (503, "urn:rowlock:problem:database-away")
        assert await outcome(sql) == []
        assert (await ask(client)).status_code == 201


async def test_unknown_outcome_stays_unknown_when_the_look_up_fails(
    proxy: Proxy, sql: Connection, settings: Settings
) -> None:
    ask = await prepare("hold with a key", sql, settings)
    async with serving(through(proxy, **BLACK_HOLE)) as client:
        strikes, asked = await strike_each(proxy, Fault.SWALLOW_ANSWER, client, [ask])
        assert strikes[0].struck.is_set()
        await sql.execute("alter table reservations rename column reply to spoilt")
        try:
            assert_unknown(await asked[0])
        finally:
            await sql.execute("alter table reservations rename column spoilt to reply")
        assert (await ask(client)).status_code == 201
    assert await outcome(sql) == done_once("hold with a key")
