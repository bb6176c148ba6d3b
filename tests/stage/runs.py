"""Runs of `make run` in data folders of their own."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil

from dev.processes import free_port
from tests.stage.processes import ROOT

END_SECONDS_MAX = 90
KINDS = ("postgres", "gunicorn", "expirer")
OPTIONAL_KINDS = ("redis-server", "beam", "epmd")


def environment(folder: Path, **changes: str | int) -> dict[str, str]:
    """A user's variables: a data folder and a port, and neither Redis nor RabbitMQ, which would take time to start."""
    values = {"data_dir": folder, "port": free_port(), "redis_url": "", "broker_url": "", **changes}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ROWLOCK_")}
    return kept | {f"ROWLOCK_{name.upper()}": str(value) for name, value in values.items()}


def with_servers(variables: dict[str, str]) -> dict[str, str]:
    """The variables of a user who has not set those of Redis and RabbitMQ."""
    unset = {"ROWLOCK_REDIS_URL", "ROWLOCK_BROKER_URL"}
    return {name: value for name, value in variables.items() if name not in unset}


async def start(variables: dict[str, str]) -> asyncio.subprocess.Process:
    """The process of `make run`."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "dev.run",
        cwd=ROOT,
        env=variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )


async def output_of_failed_run(variables: dict[str, str]) -> str:
    """The output of a run that exits with 1."""
    process = await start(variables)
    output, _ = await asyncio.wait_for(process.communicate(), END_SECONDS_MAX)
    assert process.returncode == 1, output
    return output.decode()


async def welcome(process: asyncio.subprocess.Process) -> str:
    """The output of a run until everything works."""
    assert process.stdout is not None
    try:
        output = await asyncio.wait_for(process.stdout.readuntil(b"Ctrl-C stops it."), END_SECONDS_MAX)
    except asyncio.IncompleteReadError as error:
        raise AssertionError(error.partial.decode()) from None
    return output.decode()


@asynccontextmanager
async def running(variables: dict[str, str]) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A run that has printed its welcome: its process and that text. At the end Ctrl-C stops it, with exit code 0."""
    process = await start(variables)
    try:
        yield process, await welcome(process)
        process.send_signal(signal.SIGINT)
        rest, _ = await asyncio.wait_for(process.communicate(), END_SECONDS_MAX)
        assert process.returncode == 0, rest
        assert b"the data stays" in rest
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def started_with(folder: Path) -> Iterator[tuple[int, str]]:
    """The ids and command lines of the processes of a run with this data folder."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            command = " ".join(process.cmdline())
            # PostgreSQL shows other accounts nothing but its command, and Redis overwrites its variables.
            if (
                str(folder) in command
                or str(folder) in process.cwd()
                or process.environ().get("ROWLOCK_DATA_DIR") == str(folder)
            ):
                yield process.pid, command


def kinds(folder: Path) -> set[str]:
    """Which programs run with this data folder."""
    lines = [line for _, line in started_with(folder)]
    return {kind for kind in KINDS + OPTIONAL_KINDS if any(kind in line for line in lines)}
