"""`python -m expirer cursors`: an operator lists the readers of the log, and drops one that is switched off."""

import pytest

from dev.postgres import Postgres
from dev.processes import free_port
from service.database import Connection
from service.events import cursors
from tests.stage.commands import expirer_command


async def names(sql: Connection) -> set[str]:
    """The names of the cursors."""
    return {row["name"] for row in await sql.fetch("select name from cursors")}


async def test_the_list_has_a_line_for_each_reader(postgres: Postgres, sql: Connection) -> None:
    await sql.execute("insert into cursors (name, number) values ('log', 50), ('broker', 8)")
    await cursors.take_lease(sql, "cache", "pod-7", 60_000)
    done = await expirer_command(postgres.url(), "cursors", "list")
    assert (done.code, done.errors) == (0, "")
    count, broker, cache = done.output.splitlines()
    assert count == "2 readers"
    assert broker.split()[:3] == ["broker", "42", "unread"]
    assert broker.endswith("not running")
    assert cache.split()[:3] == ["cache", "0", "unread"]
    assert cache.endswith("pod-7")


async def test_inactive_reader_is_dropped(postgres: Postgres, sql: Connection) -> None:
    await sql.execute("insert into cursors (name, number) values ('log', 50)")
    await cursors.take_lease(sql, "broker", "gone", 60_000)
    await cursors.take_lease(sql, "cache", "pod-7", 60_000)
    await sql.execute("update cursors set leased_until = clock_timestamp() where name = 'broker'")
    done = await expirer_command(postgres.url(), "cursors", "drop", "broker")
    assert (done.code, done.output) == (0, "broker dropped\n")
    assert await names(sql) == {"log", "cache"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cache", "cursors: a process is reading for cache: switch it off first\n"),
        ("log", "cursors: unknown reader: log\n"),
        ("brokers", "cursors: unknown reader: brokers\n"),
    ],
)
async def test_active_reader_and_unknown_name_are_not_dropped(
    postgres: Postgres, sql: Connection, name: str, message: str
) -> None:
    await sql.execute("insert into cursors (name, number) values ('log', 50)")
    await cursors.take_lease(sql, "cache", "pod-7", 60_000)
    done = await expirer_command(postgres.url(), "cursors", "drop", name)
    assert (done.code, done.output, done.errors) == (1, "", message)
    assert await names(sql) == {"log", "cache"}


async def test_the_cursor_of_the_numbering_is_never_dropped(sql: Connection) -> None:
    await sql.execute("insert into cursors (name, number) values ('log', 50)")
    assert not await cursors.drop_cursor(sql, "log")
    assert await names(sql) == {"log"}


async def test_without_postgresql_the_command_says_so() -> None:
    url = f"postgresql://rowlock:none@127.0.0.1:{free_port()}/postgres"
    done = await expirer_command(url, "cursors", "list")
    assert (done.code, done.output) == (1, "")
    assert done.errors.startswith("cursors: PostgreSQL does not answer")
    assert "Traceback" not in done.errors


async def test_an_unknown_command_is_refused_with_those_that_are_known() -> None:
    done = await expirer_command("postgresql://rowlock@127.0.0.1/postgres", "cursor")
    assert (done.code, done.output) == (1, "")
    assert done.errors == "expirer: unknown argument cursor; only parked, cursors are known\n"
