"""Connections that the process can't accept are reported, and those that wait when it stops are answered."""

import asyncio
import json
import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import psutil
import pytest

from dev.postgres import Postgres
from service.database import Connection
from tests.stage.processes import Process, api_process, connection_to
from tests.stage.waiting import until

pytestmark = pytest.mark.usefixtures("sql")

FILES_MAX = 64
CLIENTS = 50
SECONDS_MAX = 20
REQUEST = b"GET /livez HTTP/1.1\r\nHost: rowlock\r\n\r\n"
FULL, OVER = "new connections are closed: too many open files", "connections are accepted again"


@pytest.fixture
async def api(postgres: Postgres, sql: Connection) -> AsyncIterator[Process]:  # noqa: ARG001 - emptied first
    """An API whose worker may open FILES_MAX files."""
    async with api_process(postgres.url(), log_level="info") as started:
        (worker,) = psutil.Process(started.process.pid).children()
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (FILES_MAX, FILES_MAX))
        yield started


def lines(api: Process, event: str) -> list[dict[str, Any]]:
    """The lines of the log about this event."""
    return [line for line in map(json.loads, api.output().splitlines()) if line["event"] == event]


async def until_logged(api: Process, event: str) -> None:
    """Returns when the log has a line about the event."""

    async def is_logged() -> bool:
        return bool(lines(api, event))

    await until(is_logged, event)


async def test_connections_without_a_file_left_are_logged(api: Process) -> None:
    async with AsyncExitStack() as clients:
        for _ in range(FILES_MAX + 1):
            await clients.enter_async_context(connection_to(api))
        await until_logged(api, FULL)
    await until_logged(api, OVER)
    (line,) = lines(api, FULL)
    assert (line["level"], line["limit"]) == ("error", FILES_MAX)
    assert "ulimit -n" in line["remedy"]
    async with connection_to(api) as (reader, writer):
        writer.write(REQUEST)
        assert b" 200 " in await reader.readline()


@pytest.mark.parametrize("workers", [1, 2])
async def test_connections_that_wait_at_the_end_are_answered(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setenv("GUNICORN_CMD_ARGS", f"--workers {workers}")
    async with api_process(postgres.url()) as api, AsyncExitStack() as clients:
        api.pause()
        opened = [await clients.enter_async_context(connection_to(api)) for _ in range(CLIENTS)]
        for _, writer in opened:
            writer.write(REQUEST)
        api.process.terminate()
        api.resume()
        async with asyncio.timeout(SECONDS_MAX):
            answers = await asyncio.gather(*(reader.readline() for reader, _ in opened))
    assert answers == [b"HTTP/1.1 200 OK\r\n"] * CLIENTS
