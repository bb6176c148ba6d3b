"""The nemesis carries out a plan of faults, and in the end restores every part."""

import asyncio
import random
import signal
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

import asyncpg

from dev.processes import ServerError
from load.campaign.disk import CannotMount
from load.campaign.faults import FAULTS
from load.campaign.history import Fault
from load.campaign.plan import Planned
from load.campaign.system import Process, System

OWN = {
    "api": "api", "expirer": "expirer", "clock": "api", "postgres": "postgres", "backends": "postgres",
    "rows": "postgres", "redis": "redis", "rabbitmq": "rabbitmq", "letters": "rabbitmq", "commit": "proxy",
    "connections": "proxy",
}  # fmt: skip
"""The part that a kind of fault works on: two faults of one part never overlap, those of different parts may."""
ALSO = {"clock": "expirer"}
"""The second part that a kind works on."""


class Nemesis:
    """Carries out a plan. A fault that can't begin because of another one is recorded as skipped."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._locks = {part: asyncio.Lock() for part in set(OWN.values())}
        self.done: list[Fault] = []
        self.skipped: list[tuple[str, str]] = []

    async def run(self, planned: list[Planned]) -> None:
        """Returns when the last fault is undone."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for fault in planned:
                await asyncio.sleep(max(0.0, began + fault.at - time.monotonic()))
                group.create_task(self._do(fault))

    async def _do(self, fault: Planned) -> None:
        async with AsyncExitStack() as stack:
            for part in sorted(_parts(fault.kind)):
                await stack.enter_async_context(self._locks[part])
            began, back = time.time_ns() // 1_000, None
            try:
                back = await FAULTS[fault.kind](self._system, random.Random(fault.seed), fault.seconds)
            except CannotMount as error:
                self.skipped.append((fault.kind, str(error)))
                return
            except (
                OSError,
                asyncpg.PostgresError,
                asyncpg.InterfaceError,
                AssertionError,
                TimeoutError,
                ServerError,
                RuntimeError,
            ) as error:
                self.skipped.append((fault.kind, repr(error)))
            self.done.append(Fault(fault.kind, began, time.time_ns() // 1_000, back))


def _parts(kind: str) -> set[str]:
    name = kind.partition("-")[0]
    return {OWN[name], ALSO.get(name, OWN[name])}


async def heal(system: System) -> tuple[str, ...]:
    """Restores every part after the last fault, and returns what no fault explains."""
    for server in (system.redis, system.rabbitmq):
        await asyncio.to_thread(server.ensure_up)
    for where in system.proxies:
        where.strikes.clear()
    if system.pair.leader.process is None:
        await asyncio.to_thread(system.pair.leader.start)
    return await revived((*system.apis, *system.expirers))


async def revived(processes: Sequence[Process]) -> tuple[str, ...]:
    """Starts those that do not run. Returns which ones had ended without a fault, and which do not start."""
    found: list[str] = []
    for process in processes:
        process.send(signal.SIGCONT)
        process.note_end()
        found += process.ends
        if process.process is None:
            try:
                await process.start()
            except RuntimeError as error:
                found.append(f"{process.log.stem}: {error}")
    return tuple(found)
