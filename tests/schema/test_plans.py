"""How PostgreSQL finds what the product asks for among a million seats: by index, and no more than it needs.

The plans are the generic ones, made by index, as the service's sessions have them.
"""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import httpx
import pytest

from dev.postgres import Postgres
from expirer.loops import keeper, sweep
from service.api.cursors import FIRST_SESSION
from service.database import Connection, create_engine
from service.migrate import migrate
from service.reservation import State
from service.seatmap.maps import SeatMaps
from service.sessions.listing import SessionList
from service.settings import Settings
from service.startup import PLANS
from tests.conftest import serving
from tests.stage import big_data
from tests.stage.databases import own_database
from tests.stage.factories import Account, book, make_customer, make_manager, make_session, make_settings, pay, release
from tests.stage.hot_statements import EXAMPLES, EXEMPT, Example
from tests.stage.sources import statements
from tests.stage.waiting import until

pytestmark = pytest.mark.oldest_postgresql


@pytest.fixture(scope="module")
async def big_url(postgres: Postgres) -> AsyncIterator[str]:
    """The URL of a database with a million seats, where all plans are generic."""
    async with own_database(postgres, "big") as url:
        await migrate(url)
        connection = await asyncpg.connect(url)
        await big_data.fill(connection)
        await with_our_plans(connection, "big")
        await connection.close()
        yield url


async def with_our_plans(connection: Connection, database: str) -> None:
    """Every session of the database makes its plans as the service's do."""
    for name, value in PLANS.items():
        await connection.execute(f"alter database {database} set {name} = {value}")


@pytest.fixture
async def big(big_url: str) -> AsyncIterator[Connection]:
    """A connection of the test's own to it."""
    connection = await asyncpg.connect(big_url, statement_cache_size=0)
    yield connection
    await connection.close()


@pytest.fixture
def settings(big_url: str) -> Settings:
    """The service's settings for it."""
    return make_settings(big_url)


async def test_the_data_is_as_big_as_it_says(big: Connection) -> None:
    query = "select (select count(*) from seats), (select count(*) from reservations where state = $1 or $1 is null)"
    assert tuple(await big.fetchrow(query, None) or ()) == (1_000_000, 155_000)
    assert tuple(await big.fetchrow(query, State.HELD) or ()) == (1_000_000, 10_000)
    assert await big.fetchval("select count(*) from sessions where showtime < now()") == 10_000
    assert {name: await big.fetchval(f"show {name}") for name in PLANS} == PLANS


def test_every_statement_of_the_product_is_explained_or_exempt() -> None:
    assert EXAMPLES.keys() | EXEMPT.keys() == statements().keys()
    assert not EXAMPLES.keys() & EXEMPT.keys()


async def test_no_statement_scans_a_table_or_reads_surplus_rows(big: Connection) -> None:
    faults = {
        name: found
        for name, examples in EXAMPLES.items()
        for example in examples
        if (found := await faults_of(big, statements()[name], example))
    }
    assert faults == {}


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("select id from seats where state = 'HELD'", "Seq Scan on seats"),
        ("select id from sessions order by showtime", "10020 rows"),
        ("select count(*) from seats where session_id = 10001 and position >= 0", "pages"),
    ],
)
async def test_a_statement_that_scans_would_be_seen(big: Connection, statement: str, fault: str) -> None:
    assert fault in str(await faults_of(big, statement, Example()))


async def faults_of(connection: Connection, statement: str, example: Example) -> list[str]:
    """The faults of the generic plan, found by executing and rolling it back."""
    call = f"execute checked({example.arguments})" if example.arguments else "execute checked"
    try:
        await connection.execute(f"begin; prepare checked as {statement}")
        plan = json.loads(await connection.fetchval(f"explain (analyze, buffers, format json) {call}"))[0]["Plan"]
    except asyncpg.PostgresError as error:
        return [f"the example does not fit: {error}"]
    finally:
        await connection.execute("rollback; deallocate all")
    # A row for each reader of the log: there is nothing to search.
    scans = [
        node for node in nodes(plan) if "Scan" in node["Node Type"] and node.get("Relation Name", CURSORS) != CURSORS
    ]
    rows = sum(map(rows_looked_at, scans))
    pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    faults = [f"Seq Scan on {node['Relation Name']}" for node in scans if node["Node Type"] == "Seq Scan"]
    faults += [f"{rows:.0f} rows, not {example.rows_max}"] if rows > example.rows_max else []
    faults += [f"{pages} pages, not {example.pages_max}"] if pages > example.pages_max else []
    return faults


CURSORS = "cursors"


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan's node with all those below it."""
    yield plan
    for inner in plan.get("Plans", []):
        yield from nodes(inner)


def rows_looked_at(scan: dict[str, Any]) -> float:
    """All that it has found, whether or not a filter has taken it; the plan says so for one loop on average."""
    removed = scan.get("Rows Removed by Filter", 0) + scan.get("Rows Removed by Index Recheck", 0)
    return float((scan["Actual Rows"] + removed) * scan["Actual Loops"])


COUNT_SCANS = """
select relname as name, seq_scan, coalesce(idx_scan, 0) as idx_scan
from pg_stat_user_tables
"""
COUNT_OTHERS = """
select count(*)
from pg_stat_activity
where datname = current_database()
and application_name like 'rowlock-%'
"""


async def scans(big: Connection) -> dict[str, tuple[int, int]]:
    """The scans of each table, and its index searches, by the statements that have ended."""

    async def all_have_ended() -> bool:
        return not await big.fetchval(COUNT_OTHERS)

    await until(all_have_ended, "the end of the product's connections")
    return {row["name"]: (row["seq_scan"], row["idx_scan"]) for row in await big.fetch(COUNT_SCANS)}


async def test_nothing_that_the_product_does_scans_a_table(big: Connection, settings: Settings) -> None:
    customer, manager = await make_customer(big, settings), await make_manager(big, settings)
    before = await scans(big)
    async with serving(settings) as client:
        await use_every_route(client, customer, manager, 10_003)
    engine = create_engine(settings.model_copy(update={"sweep_batch_max": 20}), "rowlock-expirer")
    assert await sweep.step(engine, settings) > 0
    while await keeper.step(engine, settings) == 0:
        pass
    await engine.dispose()
    after = await scans(big)
    assert await big.fetchval("select count(*) from reservations where state = 'HELD' and expires_at < now()") == 0
    assert after["seats"][1] > before["seats"][1], "what happened was counted"
    scanned = {name for name, (count, _) in after.items() if count > before[name][0]}
    # The schema's number is the only row of its table, and of cursors there are two or three.
    assert scanned <= {"alembic_version", "cursors"}


async def test_nothing_scans_a_table_of_one_page(sql: Connection, postgres: Postgres) -> None:
    settings = make_settings(postgres.url())
    customer, manager = await make_customer(sql, settings), await make_manager(sql, settings)
    session = await make_session(sql, settings, 40)
    await sql.execute("analyze")
    # What was done so far is counted now.
    await sql.execute("select pg_stat_force_next_flush()")
    before = await scans(sql)
    async with serving(settings) as client:
        await use_every_route(client, customer, manager, session.id, session.seat_ids[0])
    after = await scans(sql)
    assert after["reservations"][1] > before["reservations"][1], "what happened was counted"
    assert {name for name, (count, _) in after.items() if count > before[name][0]} <= {"alembic_version", "cursors"}


async def use_every_route(
    client: httpx.AsyncClient, customer: Account, manager: Account, session_id: int, seat_id: int = 40_001
) -> None:
    """Signs up and in, makes a session, reads all lists, and holds, pays and releases."""
    ada = {"email": "ada@example.org", "password": "a long password"}
    answers = [await client.post("/sign-up", json=ada | {"name": "Ada", "role": "CUSTOMER"})]
    answers += [await client.post("/sign-in", json=ada)]
    new = {"movie": "M", "room": "1", "showtime": "2100-01-01T20:00:00Z", "duration": 99, "price": 5, "currency": "EUR"}
    new["placements"] = [f"A{n}" for n in range(16)]
    answers += [await client.post("/manager/create", json=new, headers=manager.headers)]
    answers += [await client.get("/customer/list-sessions"), await client.get(f"/customer/session/{session_id}")]
    held = [await book(client, customer, seat_id, seat_id + 1, key=key) for key in ("key", "key")]
    held += [await book(client, customer, seat_id + 2)]
    answers += [*held, await pay(client, customer, held[0].json()["reservationId"])]
    answers += [await release(client, customer, held[2].json()["reservationId"])]
    answers += [await client.get("/customer/list-history?state=CONFIRMED", headers=customer.headers)]
    answers += [await client.get(f"/customer/reservation/{held[0].json()['reservationId']}", headers=customer.headers)]
    answers += [await client.get(f"/manager/session/{session_id}/abuse", headers=manager.headers)]
    assert all(answer.is_success for answer in answers), [answer.text for answer in answers if not answer.is_success]


async def test_page_of_large_sessions_reads_no_seat(big: Connection, settings: Settings) -> None:
    before = await scans(big)
    engine = create_engine(settings, "rowlock-api")
    page = await SessionList(engine, SeatMaps(engine, None, settings), counts_seconds=1).page(FIRST_SESSION, 20)
    await engine.dispose()
    assert [session.seat_count for session, _ in page] == [50_000] * 20
    assert min(counts.sold for _, counts in page) == 1_500
    after = await scans(big)
    assert after["reservations"] > before["reservations"], "what happened was counted"
    assert after["seats"] == before["seats"]
