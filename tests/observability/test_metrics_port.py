"""The port for Prometheus: workers share it, and it answers while the event loop is stuck."""

import asyncio
import os
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path
from wsgiref.simple_server import WSGIServer

import httpx
import pytest
from prometheus_client.mmap_dict import MmapedDict
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import Postgres
from dev.processes import free_port
from service import VERSION
from service.database import snapshot
from service.observability.metrics import exposition
from service.settings import Settings
from tests.conftest import serving
from tests.stage.metering import gauge, moved, scrape
from tests.stage.processes import Process, api_process
from tests.stage.waiting import until

STUCK_SECONDS = 1.0


@pytest.mark.usefixtures("sql")
async def test_two_workers_add_up_on_one_port(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--workers=2")
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    port = free_port()
    async with api_process(postgres.url(), metrics_port=port) as api:

        async def ask() -> dict[str, int]:
            async with httpx.AsyncClient(base_url=api.url) as client:
                await client.get("/livez")
            return served_by(tmp_path)

        asked, served = 1, await ask()
        while len(served) < 2:
            served, asked = await ask(), asked + 1
            assert asked < 500, "a second worker has never served"
        shown = await scrape(port)
    (livez,) = [
        sample.value
        for sample in shown["rowlock_http_request_duration_seconds"].samples
        if sample.name.endswith("_count") and sample.labels["route"] == "/livez" and sample.value
    ]
    assert livez == asked == sum(served.values())
    assert served_by(tmp_path) == {}, "nothing is left behind"


def served_by(folder: Path) -> dict[str, int]:
    """The number of `/livez` requests that each worker has answered, if any."""
    counts: dict[str, int] = {}
    for path in folder.glob("rowlock-metrics-*/histogram_*.db"):
        for key, value, *_ in MmapedDict.read_all_values_from_file(str(path)):  # type: ignore[no-untyped-call]
            if "/livez" in key and "_sum" not in key and "_bucket" in key and "+Inf" not in key and value:
                counts[path.name] = counts.get(path.name, 0) + round(value)
    return counts


def worker_of(api: Process) -> int:
    """The worker's process id."""
    (worker,) = Path(f"/proc/{api.process.pid}/task/{api.process.pid}/children").read_text().split()
    return int(worker)


@pytest.mark.usefixtures("sql")
async def test_a_worker_that_replaces_another_gets_the_port(postgres: Postgres) -> None:
    port = free_port()
    async with api_process(postgres.url(), metrics_port=port) as api:
        assert "rowlock_build_info" in await scrape(port)
        os.kill(worker_of(api), signal.SIGKILL)

        async def answers() -> bool:
            try:
                return "rowlock_build_info" in await scrape(port)
            except httpx.TransportError:
                return False

        await until(answers, "the next worker's port")


async def test_a_port_in_use_stops_no_request_and_is_taken_later(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))  # noqa: S104 - as the service does
        taken.listen()
        port = taken.getsockname()[1]
        async with serving(settings.model_copy(update={"metrics_port": port})) as client:
            assert (await client.get("/readyz")).status_code == 200
            taken.close()

            async def answers() -> bool:
                try:
                    return "rowlock_build_info" in await scrape(port)
                except httpx.TransportError:
                    return False

            await until(answers, "the port")


async def test_closing_the_port_does_not_block_the_event_loop(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutdown, went_on = WSGIServer.shutdown, threading.Event()
    waited: list[bool] = []

    def shutdown_after_others(server: WSGIServer) -> None:
        asyncio.run_coroutine_threadsafe(go_on(), loop)
        waited.append(went_on.wait(30))
        shutdown(server)

    async def go_on() -> None:
        went_on.set()

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(WSGIServer, "shutdown", shutdown_after_others)
    port = free_port()
    async with exposition.exposed("API", VERSION, "127.0.0.1", port, engine):

        async def is_taken() -> bool:
            return not is_free(port)

        await until(is_taken, "the port")
    assert (waited, is_free(port)) == ([True], True)


def is_free(port: int) -> bool:
    """Whether no process listens there."""
    with socket.socket() as made:
        return made.connect_ex(("127.0.0.1", port)) != 0


async def test_a_stuck_event_loop_is_seen_and_the_port_still_answers(engine: AsyncEngine, settings: Settings) -> None:
    port, began = free_port(), time.monotonic()
    async with exposition.exposed("API", VERSION, "127.0.0.1", port, engine):
        async with snapshot(engine):

            async def is_seen() -> bool:
                return (gauge("pool_connections_used"), gauge("pool_size")) == (1, settings.pool_size)

            await until(is_seen, "the connection in use")
        before = gauge("event_loop_lag_seconds_sum")

        async def lag_is_seen() -> bool:
            return gauge("event_loop_lag_seconds_sum") - before > 0.25

        with moved() as grown:
            # The loop is stuck until the answer has come, and after it for two samples.
            assert "rowlock_" in httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text  # noqa: ASYNC210
            time.sleep(STUCK_SECONDS)  # noqa: ASYNC251 - it is stuck
            await until(lag_is_seen, "the time that the loop stood still")
        assert grown["event_loop_lag_seconds_count"] >= 1
        assert gauge("event_loop_lag_seconds_sum") - before < time.monotonic() - began
