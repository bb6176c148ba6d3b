"""A server process of our own on loopback: its account, its port and its life from start to end."""

import contextlib
import ctypes
import os
import pwd
import secrets
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import psutil

ACCOUNTS = ("postgres", "nobody")
"""Accounts for a program that refuses to run as root; the first that exists is used."""
PORTS = range(20_000, 30_000)
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 30
POLL_SECONDS = 0.05
LOG_LINES = 10

PR_SET_PDEATHSIG = 1


class ServerError(Exception):
    """A server can't be made or started; the message is for people."""


def end_with_parent() -> None:
    """For `preexec_fn`: Linux sends SIGTERM when the thread that started this process has ended, for any reason."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def free_port() -> int:
    """An unused port of loopback, outside the range from which the kernel takes ports for outgoing connections."""
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def answers(port: int) -> bool:
    """Whether a connection to this port of loopback is accepted."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Account:
    """The account that runs a program; without a `uid` it is our own."""

    uid: int | None = None
    gid: int | None = None

    @classmethod
    def unprivileged(cls) -> "Account":
        """Our own account, or another one where we are root. Raises ServerError where there is no other."""
        if os.geteuid() != 0:
            return cls()
        for name in ACCOUNTS:
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return cls(entry.pw_uid, entry.pw_gid)
        raise ServerError(f"PostgreSQL does not run as root, and none of the accounts {', '.join(ACCOUNTS)} exists")

    def take(self, path: Path) -> None:
        """Makes the account the owner of a file or folder."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def run(self, command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
        """Runs a program as this account and waits for its end."""
        return subprocess.run(  # noqa: S603 - our own command
            command,
            cwd=cwd,
            check=False,
            capture_output=True,
            text=True,
            user=self.uid,
            group=self.gid,
            extra_groups=None if self.uid is None else [],
        )

    def start(
        self, command: list[str], cwd: Path, log: Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Starts a program as this account with these variables and ours. Ctrl-C in our terminal does not reach it."""
        with log.open("ab") as output:
            return subprocess.Popen(  # noqa: S603 - our own command
                command,
                cwd=cwd,
                env=os.environ | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=end_with_parent,  # noqa: PLW1509 - it makes one call
                user=self.uid,
                group=self.gid,
                extra_groups=None if self.uid is None else [],
            )


@dataclass(slots=True)
class Server(ABC):
    """A process with its files and its log in `folder`. It listens on `port` of loopback."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None
    port: int = field(default_factory=free_port)
    account: Account = field(default_factory=Account)

    stop_signal: ClassVar[int] = signal.SIGTERM
    kill_signal: ClassVar[int] = signal.SIGKILL
    start_seconds_max: ClassVar[int] = START_SECONDS_MAX

    @abstractmethod
    def launch(self) -> None:
        """Starts the process without waiting until it answers. Raises ServerError."""

    def is_up(self) -> bool:
        """Whether it accepts connections."""
        return answers(self.port)

    def start(self) -> None:
        """Returns when the server accepts connections. Raises ServerError."""
        self.launch()
        self.wait_until_up()

    def wait_until_up(self, on_poll: Callable[[], None] = lambda: None) -> None:
        """Returns when the launched server accepts connections; calls `on_poll` while it waits.

        Raises ServerError with the end of the log where the server ended or took too long; then it is stopped.
        """
        deadline = time.monotonic() + self.start_seconds_max
        while not self.is_up():
            on_poll()
            if not self.is_running() or time.monotonic() > deadline:
                self.kill()
                raise ServerError(f"{type(self).__name__} did not start; {self.log} ends with:\n{end_of(self.log)}")
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Ends the server in the orderly way, or with SIGKILL after STOP_SECONDS_MAX."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """Ends the server as a power failure would: it writes nothing more."""
        self._end(self.kill_signal)

    def pause(self) -> None:
        """Stops every thread of the server, whose connections stay open. Raises ServerError."""
        deadline = time.monotonic() + STOP_SECONDS_MAX
        while working := [process for process in self._family() if not _is_stopped(process.pid)]:
            if time.monotonic() > deadline:
                raise ServerError(f"the server of {self.folder} could not be paused")
            for process in working:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.suspend()
            time.sleep(0.001)

    def resume(self) -> None:
        """Continues after a pause; does nothing to a server that works."""
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def ensure_up(self) -> None:
        """Makes a server that was stopped, killed or paused work again. Raises ServerError."""
        if self.is_running():
            self.resume()
        else:
            self.start()

    def is_running(self) -> bool:
        """Whether the process exists, paused or not."""
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> Path:
        """The file with its output."""
        return self.folder / "log"

    def _run(self, command: list[str], environment: Mapping[str, str] | None = None) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process = self.account.start(command, self.folder, self.log, environment)

    def _family(self) -> list[psutil.Process]:
        """The process and all that it has started: PostgreSQL's are in groups of their own."""
        if self.process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                first = psutil.Process(self.process.pid)
                return [first, *first.children(recursive=True)]
        return []

    def _end(self, number: int) -> None:
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
        self.resume()
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process = None
        # A child may outlive the server for a moment, and would answer instead of the next server on this port.
        deadline = time.monotonic() + STOP_SECONDS_MAX
        while answers(self.port) and time.monotonic() < deadline:
            time.sleep(0.02)


def end_of(log: Path) -> str:
    """The last lines of a log; empty where there is none."""
    with contextlib.suppress(OSError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])
    return ""


def _is_stopped(pid: int) -> bool:
    """Whether no thread of the process works: each is stopped, traced, a zombie or dead, as proc(5) calls it."""
    return all(state in "TtZX" for state in _thread_states(pid))


def _thread_states(pid: int) -> Iterator[str]:
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            # The thread's name, in brackets, may contain blanks and brackets.
            yield stat.read_text().rpartition(")")[2].split()[0]
