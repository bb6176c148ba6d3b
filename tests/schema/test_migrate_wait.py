"""`python -m service.migrate --wait`, with which a container waits until another one has migrated the schema."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from dev.postgres import Postgres
from dev.processes import free_port
from service.migrate import migrate
from service.migrations import NEWEST
from tests.stage.commands import MIGRATE, Result, run
from tests.stage.databases import own_database
from tests.stage.processes import ROOT, environment

DONE = f"The schema is {NEWEST} or newer.\n"


@pytest.fixture
async def url(postgres: Postgres) -> AsyncIterator[str]:
    """The URL of a database without any table."""
    async with own_database(postgres, "to_wait_for") as made:
        yield made


async def wait(url: str, seconds: int) -> Result:
    """The result of the command."""
    return await run((*MIGRATE, "--wait", str(seconds)), environment(url))


async def make_version(url: str, number: str) -> None:
    """Pretends that the database has the schema with this number."""
    connection = await asyncpg.connect(url)
    await connection.execute("create table alembic_version (version_num varchar(32) primary key)")
    await connection.execute("insert into alembic_version values ($1)", number)
    await connection.close()


async def test_it_ends_as_soon_as_the_schema_is_migrated(url: str) -> None:
    waiting = await asyncio.create_subprocess_exec(
        *MIGRATE, "--wait", "60", env=environment(url), cwd=ROOT,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert waiting.stderr
    async with asyncio.timeout(30):
        said = (await waiting.stderr.readline()).decode()
        assert said.startswith("migrate: waiting: the database's schema is empty, ")
        await migrate(url)
        output, errors = await waiting.communicate()
    assert (waiting.returncode, output.decode(), errors) == (0, DONE, b"")


async def test_a_newer_schema_is_enough(url: str) -> None:
    await make_version(url, "9999")
    assert await wait(url, 5) == Result(0, DONE, "")


async def test_it_gives_up_on_an_older_schema_and_changes_nothing(url: str) -> None:
    await make_version(url, "0000")
    result = await wait(url, 1)
    assert (result.code, result.output) == (1, "")
    first, last = result.errors.splitlines()
    assert first.startswith("migrate: waiting: the database's schema is 0000, ")
    assert last.startswith("migrate: not within 1 s: the database's schema is 0000, ")
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("select version_num from alembic_version") == "0000"
    await connection.close()


async def test_it_waits_for_a_server_that_does_not_answer_yet() -> None:
    result = await wait(f"postgresql://ada:secret@127.0.0.1:{free_port()}/rowlock", 1)
    assert (result.code, result.output) == (1, "")
    first, last = result.errors.splitlines()
    assert first.startswith("migrate: waiting: PostgreSQL does not answer: ")
    assert last.startswith("migrate: not within 1 s: PostgreSQL does not answer: ")
    assert "secret" not in result.errors
