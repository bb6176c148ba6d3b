"""Everything that a campaign runs against, on loopback: two APIs, two expirers, and a server of each kind."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from dev import postgres
from dev.processes import free_port
from dev.rabbitmq_cluster import Cluster
from dev.servers import RabbitMQ, Redis
from load.campaign import pair
from load.campaign.pair import Pair
from service.migrate import migrate
from tests.stage.processes import ROOT, environment
from tests.stage.proxy import Proxy, proxy_before

APIS, EXPIRERS = 2, 2
START_SECONDS_MAX = 60
LOCK_TIMEOUT_MS = 500
WRONG_CLOCK = Path(__file__).parent / "wrong_clock.c"


@dataclass(slots=True)
class Process:
    """The API or an expirer on a fixed port; it may be killed and started again, with a wrong clock too."""

    command: list[str]
    variables: dict[str, str]
    url: str
    path: str
    log: Path
    process: asyncio.subprocess.Process | None = None
    """None where it was killed, or did not start."""
    ends: list[str] = field(default_factory=list)
    """The times when it ended although no fault had killed it."""

    async def start(self, clock_wrong_by_seconds: int = 0) -> None:
        """Returns when it answers."""
        variables = self.variables | {"WRONG_CLOCK_SECONDS": str(clock_wrong_by_seconds)}
        with self.log.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                *self.command, env=variables, cwd=ROOT, stdout=output, stderr=output, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS_MAX
        async with httpx.AsyncClient(base_url=self.url) as client:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get(self.path)).status_code != httpx.codes.NOT_FOUND:
                        return
                if self.process.returncode is not None or time.monotonic() > deadline:
                    await self._end()
                    raise RuntimeError(f"it did not start; {self.log} ends with:\n{self.log.read_text()[-2_000:]}")
                await asyncio.sleep(0.05)

    def send(self, number: int) -> None:
        """A signal for it and its workers."""
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    async def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self.note_end()
        await self._end()

    def note_end(self) -> None:
        """Records that it has ended, where no fault did that."""
        if self.process is not None and self.process.returncode is not None:
            self.ends.append(f"{self.log.stem} ended without a fault, with the status {self.process.returncode}")
            self.process = None

    async def _end(self) -> None:
        self.send(signal.SIGCONT)
        self.send(signal.SIGKILL)
        if self.process is not None:
            await self.process.wait()
            self.process = None


@dataclass(slots=True)
class System:
    """The parts. `proxies` stand before the two PostgreSQL servers, for the first API only."""

    folder: Path
    pair: Pair
    redis: Redis
    rabbitmq: RabbitMQ | Cluster
    proxies: list[Proxy] = field(default_factory=list)
    apis: list[Process] = field(default_factory=list)
    expirers: list[Process] = field(default_factory=list)


@asynccontextmanager
async def started(
    major: int | None, *, synchronous: bool, three_brokers: bool, own_disks: bool, **settings: Any
) -> AsyncIterator[System]:
    """Starts all, and ends and removes all whatever happens. `major` None is the newest PostgreSQL. A cluster of three
    RabbitMQs takes a minute of a busy machine to start, so it is there only for the fault that needs it. With
    `own_disks` the data of each PostgreSQL is on a file system of its own.
    """
    folder = Path(tempfile.mkdtemp(prefix="rowlock-campaign-"))
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        binaries = postgres.wheel_binaries() if major is None else postgres.debian_binaries(major)
        system = System(
            folder,
            pair.make(folder, binaries, synchronous=synchronous, own_disks=own_disks),
            Redis(folder / "redis"),
            (Cluster if three_brokers else RabbitMQ)(folder / "rabbitmq"),
        )
        stack.callback(system.pair.stop)
        for server in (system.redis, system.rabbitmq):
            stack.callback(server.stop)
        await asyncio.gather(
            system.pair.start(), *(asyncio.to_thread(server.start) for server in (system.redis, system.rabbitmq))
        )
        await migrate(system.pair.leader.url())
        system.proxies = [await stack.enter_async_context(proxy_before(server)) for server in system.pair.servers]
        stack.push_async_callback(_kill_all, system)
        await _start_processes(system, settings)
        yield system


def _compiled(folder: Path) -> Path:
    """The library through which a process sees a wrong clock. Raises RuntimeError without a compiler."""
    library = folder / "wrong_clock.so"
    compiler = shutil.which("cc")
    if compiler is None:
        raise RuntimeError("a C compiler is missing: apt-get install gcc libc6-dev")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(WRONG_CLOCK), "-ldl"], check=True)  # noqa: S603
    return library


async def _kill_all(system: System) -> None:
    await asyncio.gather(*(process.kill() for process in (*system.apis, *system.expirers)))


async def _start_processes(system: System, settings: Mapping[str, Any]) -> None:
    common = {
        "redis_url": system.redis.url,
        "broker_url": system.rabbitmq.url,
        "lock_timeout_ms": LOCK_TIMEOUT_MS,
        "statement_timeout_ms": 2_000,
        "redis_timeout_ms": 150,
        "sweep_interval_ms": 250,
        "counts_seconds": 0.05,
        **settings,
    }
    library = {"LD_PRELOAD": str(_compiled(system.folder))}
    for number in range(APIS):
        url = system.pair.url_by(*(proxy.port for proxy in system.proxies)) if number == 0 else system.pair.url
        system.apis.append(_api(system.folder / f"api-{number}.log", url, common))
    for number in range(EXPIRERS):
        system.expirers.append(_expirer(system.folder / f"expirer-{number}.log", system.pair.url, common))
    for process in (*system.apis, *system.expirers):
        process.variables |= library
    await asyncio.gather(*(process.start() for process in (*system.apis, *system.expirers)))


def _api(log: Path, database_url: str, settings: Mapping[str, Any]) -> Process:
    port = free_port()
    gunicorn = str(Path(sys.executable).with_name("gunicorn"))
    command = [gunicorn, "--config", "service/gunicorn.conf.py", "service.app:create_app()"]
    return Process(command, environment(database_url, port=port, **settings), f"http://127.0.0.1:{port}", "/livez", log)


def _expirer(log: Path, database_url: str, settings: Mapping[str, Any]) -> Process:
    port = free_port()
    variables = environment(database_url, expirer_port=port, **settings)
    return Process([sys.executable, "-m", "expirer"], variables, f"http://127.0.0.1:{port}", "/livez", log)
