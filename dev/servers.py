"""A Redis and a RabbitMQ of our own, on loopback, from Debian's packages; for the tests.

Each has its files in a folder of its own and is ended by its process id. They run as we do, root or not.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dev.postgres import free_port

START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 15
RABBITMQ = Path("/usr/lib/rabbitmq/bin")


class ServerError(Exception):
    """A server can't be started; the message is for people."""


@dataclass(slots=True)
class Server(ABC):
    """A process with its log in `folder`; `stop`, `kill` and `pause` reach whatever it has started too."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None
    port: int = field(default_factory=free_port)

    def kill(self) -> None:
        """As when the machine loses power: SIGKILL, and nothing is written any more."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that is not enough."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """It neither works nor answers, but its connections stay. Returns when the last of its threads has stopped."""
        self._signal(signal.SIGSTOP)
        deadline = time.monotonic() + STOP_SECONDS_MAX
        while not all(state in "TtZX" for state in self._thread_states()):
            if time.monotonic() > deadline:
                raise ServerError(f"the server of {self.folder} did not stop")
            time.sleep(0.001)

    def resume(self) -> None:
        """It goes on where it was paused."""
        self._signal(signal.SIGCONT)

    def ensure_up(self) -> None:
        """Whatever a test has done to it: it is up and works."""
        if self.is_running():
            self.resume()
        else:
            self.start()

    def is_running(self) -> bool:
        """Or paused."""
        return self.process is not None and self.process.poll() is None

    @abstractmethod
    def start(self) -> None:
        """Returns when it answers. Raises ServerError."""

    def _launch(self, command: list[str], environment: dict[str, str], is_up: Callable[[], bool]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                command,
                cwd=self.folder,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS_MAX
        while not is_up():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise ServerError(f"{command[0]} did not start; {log} ends with:\n{_end_of(log)}")
            time.sleep(0.05)

    def _thread_states(self) -> Iterator[str]:
        """What each thread of the process and of what it has started does, in the letters of proc(5)."""
        assert self.process is not None
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.getpgid(int(path.name)) == self.process.pid:
                    for stat in path.glob("task/*/stat"):
                        # The name of the thread, in brackets, may have anything in it.
                        yield stat.read_text().rpartition(")")[2].split()[0]

    def _signal(self, number: int) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def _end(self, number: int) -> None:
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._signal(number)
            self._signal(signal.SIGCONT)
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self.process.wait()
        self.process = None
        # What it had started may outlive it for a moment, and would answer in the place of its successor.
        deadline = time.monotonic() + STOP_SECONDS_MAX
        while _answers(self.port) and time.monotonic() < deadline:
            time.sleep(0.02)


@dataclass(slots=True)
class Redis(Server):
    """Snapshots are written when a test asks for them, and read at the start."""

    password: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def url(self) -> str:
        """How to connect."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Returns when it answers. Raises ServerError."""
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "save": "",
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
            "requirepass": self.password,
        }
        command = [_found("redis-server", "redis-server")]
        for name, value in options.items():
            command += [f"--{name}", value]
        self._launch(command, {}, lambda: _answers(self.port))

    def forget_snapshot(self) -> None:
        """The next start is an empty one."""
        (self.folder / "dump.rdb").unlink(missing_ok=True)


@dataclass(slots=True)
class RabbitMQ(Server):
    """A node with a name, a cookie and an epmd of its own, so that it meets no other on the machine."""

    distribution_port: int = field(default_factory=free_port)
    epmd_port: int = field(default_factory=free_port)
    node: str = field(default_factory=lambda: f"rowlock-{secrets.token_hex(4)}@localhost")

    @property
    def url(self) -> str:
        """How to connect."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def start(self) -> None:
        """Returns when it accepts connections. Raises ServerError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            "loopback_users = none\n"
            "log.console = true\n"
            "log.console.level = warning\n"
            "log.file = false\n"
            "vm_memory_high_watermark.absolute = 1GB\n"
            "disk_free_limit.absolute = 10MB\n"
        )
        cookie = self.folder / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(0o600)
            cookie.write_text(secrets.token_hex(16))
            cookie.chmod(0o400)
        self._launch([_found("rabbitmq-server", str(RABBITMQ / "rabbitmq-server"))], self._environment(), self._is_up)

    def forget(self) -> None:
        """The next start is an empty one."""
        shutil.rmtree(self.folder / "data")

    def stop(self) -> None:
        """Ends the node, and the epmd that it has started."""
        super(RabbitMQ, self).stop()
        self._stop_epmd()

    def control(self, *arguments: str) -> str:
        """What rabbitmqctl prints. Raises ServerError."""
        result = subprocess.run(  # noqa: S603 - our own command
            [str(RABBITMQ / "rabbitmqctl"), "--node", self.node, *arguments],
            env=os.environ | self._environment(),
            check=False,
            capture_output=True,
            text=True,
            timeout=START_SECONDS_MAX,
        )
        if result.returncode != 0:
            raise ServerError(f"rabbitmqctl {' '.join(arguments)}: {result.stderr}")
        return result.stdout

    def _environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.folder),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "logs"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def _is_up(self) -> bool:
        return _answers(self.port)

    def _stop_epmd(self) -> None:
        """By its id: it is the process that listens on our own port."""
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                variables = (path / "environ").read_bytes().split(b"\0")
                is_epmd = (path / "comm").read_text().strip() == "epmd"
                if is_epmd and f"ERL_EPMD_PORT={self.epmd_port}".encode() in variables:
                    os.kill(int(path.name), signal.SIGTERM)


def _found(package: str, program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise ServerError(f"{program} is missing: apt-get install {package}")
    return path


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def _end_of(log: Path) -> str:
    with contextlib.suppress(OSError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-10:])
    return ""
