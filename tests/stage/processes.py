"""The product as in production: gunicorn with the API, and the expirer, as processes of their own."""

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import httpx
import psutil

from dev.processes import free_port
from tests.stage.factories import TOKEN_SECRET

START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 30
ROOT = Path(__file__).parents[2]


@dataclass(slots=True)
class Process:
    """A started process, which answers at `url` and writes to `log`."""

    process: asyncio.subprocess.Process
    url: str
    log: IO[bytes]

    def output(self) -> str:
        """The log until now."""
        return Path(self.log.name).read_text()

    def cpu_seconds(self) -> float:
        """The CPU time of the process and its workers until now, independent of the machine's other load."""
        own = psutil.Process(self.process.pid)
        times = [process.cpu_times() for process in (own, *own.children())]
        return sum(used.user + used.system for used in times)

    def kill_now(self) -> None:
        """Sends SIGKILL to the process and its workers."""
        os.killpg(self.process.pid, signal.SIGKILL)

    def pause(self) -> None:
        """Stops the process and its workers, whose connections stay open."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Continues after a pause."""
        os.killpg(self.process.pid, signal.SIGCONT)

    async def stop(self) -> int:
        """Sends SIGTERM and returns the exit code."""
        if self.process.returncode is None:
            self.process.terminate()
        try:
            return await asyncio.wait_for(self.process.wait(), STOP_SECONDS_MAX)
        except TimeoutError:
            self.kill_now()
            raise


def environment(database_url: str, **changes: Any) -> dict[str, str]:
    """The variables of a process: `hold_seconds=1` is ROWLOCK_HOLD_SECONDS=1."""
    values: dict[str, Any] = {
        "database_url": database_url,
        "token_secret": TOKEN_SECRET,
        "open_manager_sign_up": "true",
        "host": "127.0.0.1",
        "log_level": "warning",
        # As in `make_settings`: measurements and tests let the same customers' holds expire again and again.
        "unpaid_ends_max": 0,
        "metrics_port": 0,
        "expirer_metrics_port": 0,
        "account_requests_per_minute": 1_000_000,
        "account_payments_per_minute": 1_000_000,
        "address_requests_per_minute": 1_000_000,
        "address_sign_ins_per_minute": 1_000_000,
        "address_refusals_per_minute": 1_000_000,
        **changes,
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ROWLOCK_")}
    return kept | {f"ROWLOCK_{name.upper()}": str(value) for name, value in values.items()}


@asynccontextmanager
async def api_process(database_url: str, **changes: Any) -> AsyncIterator[Process]:
    """The API under gunicorn, ready, on a port of its own."""
    async with gunicorn_process("service.app:create_app()", database_url, **changes) as api:
        yield api


@asynccontextmanager
async def gunicorn_process(app: str, database_url: str, **changes: Any) -> AsyncIterator[Process]:
    """An application under gunicorn: the API, or the API with more routes."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("gunicorn")), "--config", "service/gunicorn.conf.py", app]
    async with _started(command, environment(database_url, port=port, **changes), f"http://127.0.0.1:{port}") as api:
        await _wait_for(api, "/readyz")
        yield api


@asynccontextmanager
async def connection_to(server: Process) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection for bytes that no client would send, cut at the end."""
    address = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        # Until the socket is closed.
        await asyncio.sleep(0)


@asynccontextmanager
async def expirer_process(database_url: str, **changes: Any) -> AsyncIterator[Process]:
    """The expirer, alive, on a port of its own."""
    port = free_port()
    command = [sys.executable, "-m", "expirer"]
    variables = environment(database_url, expirer_port=port, **changes)
    async with _started(command, variables, f"http://127.0.0.1:{port}") as expirer:
        await _wait_for(expirer, "/livez")
        yield expirer


@asynccontextmanager
async def _started(command: list[str], variables: Mapping[str, str], url: str) -> AsyncIterator[Process]:
    with tempfile.NamedTemporaryFile(prefix="rowlock-log-") as log:
        started = await asyncio.create_subprocess_exec(
            *command, env=variables, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )
        process = Process(started, url, log)
        try:
            yield process
        finally:
            await process.stop()


async def _wait_for(process: Process, path: str) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    async with httpx.AsyncClient(base_url=process.url) as client:
        while True:
            try:
                if (await client.get(path)).is_success:
                    return
            except httpx.TransportError:
                assert process.process.returncode is None, process.output()
            assert time.monotonic() < deadline, process.output()
            await asyncio.sleep(0.05)
