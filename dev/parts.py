"""The processes of `make run`: each is started, answers, and must not end before Ctrl-C."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from dev.data_folder import ROOT
from dev.processes import Account, end_of

START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 60
POLL_SECONDS = 0.1

stopping = threading.Event()
"""Set by a signal and checked only between steps, so that a signal never separates a start from its registration."""


class RunError(Exception):
    """The run can't start, or one of its processes has ended; the message is for people."""


class Stopped(Exception):
    """A signal asks for the end."""


@dataclass(frozen=True, slots=True)
class Part:
    """A process of the run."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def obituary(self) -> str:
        """How it ended, with the end of its log."""
        return f"{self.name} ended with {self.process.returncode}; {self.log} ends with:\n{end_of(self.log)}"


@dataclass(frozen=True, slots=True)
class Program:
    """A process of the product that is to be started; it answers at `url`."""

    name: str
    command: list[str]
    log: Path
    url: str


def go_on() -> None:
    """Raises Stopped after a signal."""
    if stopping.is_set():
        raise Stopped


def say(text: str) -> None:
    """Prints a message."""
    sys.stdout.write(f"rowlock: {text}\n")
    sys.stdout.flush()


@contextmanager
def started(
    program: Program, *, start_seconds_max: float = START_SECONDS_MAX, stop_seconds_max: float = STOP_SECONDS_MAX
) -> Iterator[Part]:
    """A process of the product that already answers; at the end it and its children are ended."""
    process = Account().start(program.command, ROOT, program.log)
    part = Part(program.name, process, program.log)
    try:
        _wait_for_answer(part, program.url, start_seconds_max)
        yield part
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(stop_seconds_max)
        with suppress(ProcessLookupError):
            # A worker may survive a master that was killed.
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def watch(parts: list[Part]) -> None:
    """Never returns. Raises Stopped after a signal, RunError when a part has ended."""
    while all(part.process.poll() is None for part in parts):
        go_on()
        stopping.wait(POLL_SECONDS)
    raise RunError("\n".join(part.obituary() for part in parts if part.process.poll() is not None))


def _wait_for_answer(part: Part, url: str, seconds_max: float) -> None:
    deadline = time.monotonic() + seconds_max
    while not _is_healthy(url):
        go_on()
        if part.process.poll() is not None:
            raise RunError(part.obituary())
        if time.monotonic() > deadline:
            raise RunError(f"{part.name} did not answer within {seconds_max:g} s; {part.log} may contain the reason")
        stopping.wait(POLL_SECONDS)


def _is_healthy(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(url, timeout=5).is_success
    return False
