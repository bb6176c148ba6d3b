"""The same servers in their newest versions, as containers of compose.test.yml."""

import contextlib
import os
import secrets
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from dev.postgres import SUPERUSER
from dev.processes import START_SECONDS_MAX, ServerError, free_port

FILE = Path(__file__).parent.parent / "compose.test.yml"
SECONDS_MAX = 180
PORTS = {"postgresql": "POSTGRESQL_PORT", "redis": "REDIS_PORT", "rabbitmq": "RABBITMQ_PORT"}


@dataclass(slots=True)
class Project:
    """A compose project with three containers and a network. Its random name identifies it."""

    name: str = field(default_factory=lambda: f"rowlock-{secrets.token_hex(4)}")
    password: str = field(default_factory=lambda: secrets.token_hex(8))
    ports: dict[str, int] = field(default_factory=lambda: {service: free_port() for service in PORTS})

    def compose(self, *arguments: str) -> str:
        """The output of docker compose. Raises ServerError."""
        variables = {variable: str(self.ports[service]) for service, variable in PORTS.items()}
        try:
            result = subprocess.run(  # noqa: S603 - our own command
                ["docker", "compose", "--project-name", self.name, "--file", str(FILE), *arguments],  # noqa: S607 - where the machine has it
                env=os.environ | variables | {"PASSWORD": self.password},
                check=False,
                capture_output=True,
                text=True,
                timeout=SECONDS_MAX,
            )
        except FileNotFoundError:
            raise ServerError("ROWLOCK_TEST_SERVERS=compose needs docker with its compose plugin") from None
        if result.returncode != 0:
            raise ServerError(f"docker compose {' '.join(arguments)}: {result.stderr}")
        return result.stdout


@dataclass(slots=True)
class Container:
    """One service of the project, with the methods of `dev.processes.Server`."""

    project: Project
    service: str

    @property
    def port(self) -> int:
        """Its port on loopback."""
        return self.project.ports[self.service]

    @property
    def url(self) -> str:
        """How to connect."""
        account = {"redis": "", "rabbitmq": SUPERUSER}[self.service]
        scheme, rest = {"redis": ("redis", "/0"), "rabbitmq": ("amqp", "//")}[self.service]
        return f"{scheme}://{account}:{self.project.password}@127.0.0.1:{self.port}{rest}"

    def start(self) -> None:
        """Returns when the container is healthy."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                self.project.compose("up", "--detach", "--wait", self.service)
            except ServerError:
                # A container that was paused counts as unhealthy until its next check.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def stop(self) -> None:
        """Ends the container."""
        self.project.compose("stop", self.service)

    def kill(self) -> None:
        """Ends it as a power failure would."""
        self.project.compose("kill", self.service)

    def pause(self) -> None:
        """Stops its processes, whose connections stay open."""
        self.project.compose("pause", self.service)

    def resume(self) -> None:
        """Continues after a pause."""
        self.project.compose("unpause", self.service)

    def ensure_up(self) -> None:
        """Makes a container that was stopped, killed or paused work again."""
        with contextlib.suppress(ServerError):
            # Fails unless it is paused.
            self.resume()
        self.start()

    def control(self, *arguments: str) -> str:
        """The output of rabbitmqctl."""
        return self.project.compose("exec", "--no-TTY", self.service, "rabbitmqctl", *arguments)

    def forget(self) -> None:
        """Makes the next start one without data."""
        self.project.compose("rm", "--force", "--stop", "--volumes", self.service)
