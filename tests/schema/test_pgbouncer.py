"""Behind PgBouncer the product works in session and transaction mode, or names the setting that must be changed."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from dev.postgres import Postgres
from service.database import Connection, create_engine, snapshot
from service.errors import NotReady
from service.events.wakeups import Bell, News
from service.settings import Settings
from tests.conftest import serving
from tests.stage.factories import book, make_customers, make_session, make_settings, pay, release
from tests.stage.pgbouncer import LIMITS, PgBouncer, command, pgbouncer_before, version
from tests.stage.servers import Servers

pytestmark = pytest.mark.skipif(not command(), reason="pgbouncer is not installed")
KEEPS_STATEMENTS = version() >= (1, 21)
SESSION = {"pool_mode": "session", "default_pool_size": "20"}
TRANSACTION = {"pool_mode": "transaction"} | ({"max_prepared_statements": "200"} if KEEPS_STATEMENTS else {})
MODES = {"session": SESSION} | ({"transaction": TRANSACTION} if KEEPS_STATEMENTS else {})


@pytest.fixture
def folder(servers: Servers) -> Path:
    """For PgBouncer's files; the account of PostgreSQL reads them, wherever pytest keeps its own."""
    servers.folder.chmod(0o755)
    return Path(tempfile.mkdtemp(prefix="pgbouncer-", dir=servers.folder))


def settings_of(pooler: PgBouncer, **changes: object) -> Settings:
    """The service's settings behind the pooler."""
    return make_settings(pooler.url, pool_size=6, **changes)


@pytest.mark.parametrize("mode", MODES)
async def test_customers_buy_behind_a_pooler(sql: Connection, postgres: Postgres, folder: Path, mode: str) -> None:
    settings = make_settings(postgres.url())
    customers = await make_customers(sql, settings, 12)
    seats = (await make_session(sql, settings, 60)).seat_ids

    async def buy(client: httpx.AsyncClient, n: int) -> list[int]:
        statuses = []
        for seat_id in seats[5 * n : 5 * n + 5]:
            held = await book(client, customers[n], seat_id)
            paid = await (pay, release)[seat_id % 2](client, customers[n], held.json()["reservationId"])
            listed = await client.get("/customer/list-history", headers=customers[n].headers)
            statuses += [held.status_code, paid.status_code, listed.status_code]
        return statuses

    async with pgbouncer_before(postgres, folder, MODES[mode]) as pooler, serving(settings_of(pooler)) as client:
        assert (await client.get("/readyz")).status_code == 200
        answers = await asyncio.gather(*(buy(client, n) for n in range(12)))
    assert {status for statuses in answers for status in statuses} == {200, 201}


@pytest.mark.parametrize("options", [{}, {"ignore_startup_parameters": ",".join([*LIMITS, "tcp_keepalives_idle"])}])
async def test_missing_limits_are_refused_with_the_commands(
    postgres: Postgres, sql: Connection, folder: Path, options: dict[str, str]
) -> None:
    limits = {"statement_timeout": "1min"}
    async with pgbouncer_before(postgres, folder, SESSION | options, limits) as pooler:
        engine = create_engine(settings_of(pooler), "rowlock-test")
        with pytest.raises(NotReady) as refused:
            async with snapshot(engine):
                pass
        await engine.dispose()
    for advice in (
        "alter role pooled set statement_timeout = '5000ms'",
        "alter role pooled set lock_timeout = '2000ms'",
        "alter role pooled set idle_in_transaction_session_timeout = '5000ms'",
    ):
        assert advice in str(refused.value)
    assert await sql.fetchval("select 1") == 1


@asynccontextmanager
async def _without_statements(postgres: Postgres, folder: Path) -> AsyncIterator[PgBouncer]:
    options = {"pool_mode": "transaction"} | ({"max_prepared_statements": "0"} if KEEPS_STATEMENTS else {})
    async with pgbouncer_before(postgres, folder, options) as pooler:
        yield pooler


@pytest.mark.usefixtures("sql")
async def test_forgotten_statements_are_refused_with_the_setting(postgres: Postgres, folder: Path) -> None:
    async with _without_statements(postgres, folder) as pooler:
        engine = create_engine(settings_of(pooler), "rowlock-test")

        async def read() -> None:
            for _ in range(20):
                async with snapshot(engine) as connection:
                    await connection.fetchval("select 1")
                    await connection.fetchval("select pg_sleep(0.01)")

        answers = await asyncio.gather(*(read() for _ in range(6)), return_exceptions=True)
        await engine.dispose()
    refused = [answer for answer in answers if isinstance(answer, NotReady)]
    assert refused
    assert {type(answer) for answer in answers if answer} == {NotReady}
    assert "max_prepared_statements" in str(refused[0])
    assert "pool_mode to session" in str(refused[0])


@pytest.mark.skipif(not KEEPS_STATEMENTS, reason="needs PgBouncer 1.21, which make newest has")
async def test_wake_ups_leave_no_setting_in_a_shared_session(postgres: Postgres, sql: Connection, folder: Path) -> None:
    has_rung = asyncio.Event()
    await sql.add_listener(News.COMMITTED, lambda *_: has_rung.set())
    async with pgbouncer_before(postgres, folder, TRANSACTION | {"default_pool_size": "1"}) as pooler:
        settings = settings_of(pooler)
        bell, engine = Bell(settings, "rowlock-test"), create_engine(settings, "rowlock-test")
        with capture_logs() as lines:
            bell.ring()
            await asyncio.wait_for(has_rung.wait(), 20)
            async with snapshot(engine) as connection:
                assert await connection.fetchval("show synchronous_commit") == "on"
        await bell.close()
        await engine.dispose()
    assert lines == []
