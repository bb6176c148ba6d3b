"""A Redis and a RabbitMQ of our own, from the system's packages; for `make run` and for the tests."""

import os
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dev.processes import START_SECONDS_MAX, Server, ServerError, free_port

RABBITMQ = Path("/usr/lib/rabbitmq/bin")
LOOPBACK = "127.0.0.1"


class NotInstalled(ServerError):
    """A server's program is missing."""


@dataclass(slots=True)
class Redis(Server):
    """It writes a snapshot only when a client asks for one, and reads it at the next start."""

    password: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def url(self) -> str:
        """How to connect."""
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"

    def launch(self) -> None:
        """Starts the process. Raises NotInstalled."""
        options = {
            "port": str(self.port),
            "bind": LOOPBACK,
            "dir": str(self.folder),
            "save": "",
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
            "requirepass": self.password,
        }
        command = [_found("redis-server", "redis-server")]
        for name, value in options.items():
            command += [f"--{name}", value]
        self._run(command)

    def forget(self) -> None:
        """Makes the next start one without data."""
        (self.folder / "dump.rdb").unlink(missing_ok=True)


@dataclass(slots=True)
class Epmd(Server):
    """Erlang's directory of nodes. RabbitMQ would start one as a daemon, which would outlive us."""

    def launch(self) -> None:
        """Starts the process. Raises NotInstalled."""
        self._run([_found("rabbitmq-server", "epmd"), "-port", str(self.port), "-address", LOOPBACK])


@dataclass(slots=True)
class RabbitMQ(Server):
    """A node with its own name, cookie and epmd, so that it never meets another node of this machine. Where `peers` has
    the names of several nodes, those that are new form a cluster.
    """

    distribution_port: int = field(default_factory=free_port)
    node: str = field(default_factory=lambda: f"rowlock-{secrets.token_hex(4)}@localhost")
    cookie: str = field(default_factory=lambda: secrets.token_hex(16))
    peers: Sequence[str] = ()
    epmd: Epmd = field(init=False)

    def __post_init__(self) -> None:
        self.epmd = Epmd(self.folder / "epmd")

    @property
    def url(self) -> str:
        """How to connect."""
        return f"amqp://guest:guest@{LOOPBACK}:{self.port}//"

    def launch(self) -> None:
        """Starts the process, after its epmd. Raises ServerError."""
        program = _found("rabbitmq-server", str(RABBITMQ / "rabbitmq-server"))
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = {LOOPBACK}:{self.port}\n"
            "loopback_users = none\n"
            "log.console = true\n"
            "log.console.level = warning\n"
            "log.file = false\n"
            "vm_memory_high_watermark.absolute = 1GB\n"
            "disk_free_limit.absolute = 10MB\n"
            + "".join(f"cluster_formation.classic_config.nodes.{n} = {name}\n" for n, name in enumerate(self.peers, 1))
        )
        cookie = self.folder / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(0o600)
            cookie.write_text(self.cookie)
            cookie.chmod(0o400)
        self.epmd.ensure_up()
        self._run([program], self._environment())

    def stop(self) -> None:
        """Ends the node and its epmd."""
        super(RabbitMQ, self).stop()
        self.epmd.stop()

    def kill(self) -> None:
        """Ends both as a power failure would."""
        super(RabbitMQ, self).kill()
        self.epmd.kill()

    def forget(self) -> None:
        """Makes the next start one without data."""
        shutil.rmtree(self.folder / "data", ignore_errors=True)

    def control(self, *arguments: str) -> str:
        """The output of rabbitmqctl. Raises ServerError."""
        try:
            result = subprocess.run(  # noqa: S603 - our own command
                [str(RABBITMQ / "rabbitmqctl"), "--node", self.node, *arguments],
                env=os.environ | self._environment(),
                check=False,
                capture_output=True,
                text=True,
                timeout=START_SECONDS_MAX,
            )
        except subprocess.TimeoutExpired as error:
            raise ServerError(f"{error}") from None
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
            "ERL_EPMD_PORT": str(self.epmd.port),
            "ERL_EPMD_ADDRESS": LOOPBACK,
        }


def _found(package: str, program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise NotInstalled(f"{Path(program).name} is missing: apt-get install {package}")
    return path
