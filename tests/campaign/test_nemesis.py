"""The nemesis keeps faults of one part apart, and goes on where one can't be carried out."""

import asyncio
import os
import random
import signal
import sys
from pathlib import Path

import pytest

from dev import servers
from dev.processes import free_port
from load.campaign import faults, pair
from load.campaign.nemesis import Nemesis, revived
from load.campaign.plan import Planned
from load.campaign.system import Process, System


@pytest.fixture
def system(tmp_path: Path) -> System:
    """Nothing of it runs."""
    return System(
        tmp_path,
        pair.Pair(tmp_path, [], synchronous=True),
        servers.Redis(tmp_path / "redis"),
        servers.RabbitMQ(tmp_path / "rabbitmq"),
    )


def process_of(tmp_path: Path, *arguments: str) -> Process:
    """A process that runs Python with these arguments and the number of its port."""
    port = free_port()
    command = [sys.executable, *arguments, str(port)]
    return Process(command, {}, f"http://127.0.0.1:{port}", "/", tmp_path / "api-0.log")


async def short(_system: System, _chance: random.Random, _seconds: float) -> int:
    """A fault without an effect, whose part served again at 7."""
    await asyncio.sleep(0.05)
    return 7


async def failing(_system: System, _chance: random.Random, _seconds: float) -> None:
    """A fault whose process does not start again."""
    raise RuntimeError("it did not start")


async def test_a_wrong_clock_and_a_killed_expirer_do_not_overlap(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("clock-wrong", "expirer-killed"):
        monkeypatch.setitem(faults.FAULTS, kind, short)
    nemesis = Nemesis(system)
    await nemesis.run([Planned("clock-wrong", 0, 1, 1), Planned("expirer-killed", 0, 1, 1)])
    first, second = nemesis.done
    assert first.ended <= second.began
    assert first.back == 7


async def test_a_fault_that_fails_is_recorded(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(faults.FAULTS, "api-killed", failing)
    nemesis = Nemesis(system)
    await nemesis.run([Planned("api-killed", 0, 1, 1)])
    assert nemesis.skipped == [("api-killed", "RuntimeError('it did not start')")]
    assert [fault.kind for fault in nemesis.done] == ["api-killed"]


async def test_a_process_that_ended_by_itself_is_found(tmp_path: Path) -> None:
    process = process_of(tmp_path, "-m", "http.server", "--bind", "127.0.0.1")
    await process.start()
    assert process.process is not None
    os.kill(process.process.pid, signal.SIGTERM)
    await process.process.wait()
    # A fault that comes later does not hide it.
    await process.kill()
    assert await revived([process]) == ("api-0 ended without a fault, with the status -15",)
    await process.kill()


async def test_a_process_that_a_fault_killed_starts_again(tmp_path: Path) -> None:
    process = process_of(tmp_path, "-m", "http.server", "--bind", "127.0.0.1")
    await process.start()
    await process.kill()
    assert await revived([process]) == ()
    assert process.process is not None
    await process.kill()


async def test_a_process_that_does_not_start_is_found(tmp_path: Path) -> None:
    process = process_of(tmp_path, "-c", "print('the reason')")
    (found,) = await revived([process])
    assert found.startswith("api-0: it did not start")
    assert "the reason" in found
