"""The servers of one test worker, each started by the first test that needs it.

The newest PostgreSQL is the wheel's; the oldest supported one, Redis and RabbitMQ are those of the system's packages.
With ROWLOCK_TEST_SERVERS=compose the newest of each is a container of compose.test.yml instead.
"""

import asyncio
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from dev import postgres
from dev.containers import Container, Project
from dev.postgres import Postgres
from dev.servers import RabbitMQ, Redis
from service.migrate import migrate

S = TypeVar("S", Redis | Container, RabbitMQ | Container)

NEWEST, OLDEST = 18, postgres.oldest_on_debian()
AS_CONTAINERS = os.environ.get("ROWLOCK_TEST_SERVERS") == "compose"
OPTIONS = {
    # Tests crash the server, never the machine: without fsync nothing is lost then, and everything is faster.
    "fsync": "off",
    "max_connections": "300",
    "max_prepared_transactions": "1",
    "shared_buffers": "128MB",
    "deadlock_timeout": "100ms",
    "log_lock_waits": "on",
    "autovacuum_naptime": "5s",
}


@dataclass(slots=True)
class Servers:
    """Starts each server on its first use; `stop` ends them and removes their files."""

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="rowlock-tests-")))
    running: dict[int, Postgres] = field(default_factory=dict)
    others: dict[str, Redis | RabbitMQ | Container] = field(default_factory=dict)
    project: Project | None = field(default_factory=lambda: Project() if AS_CONTAINERS else None)

    def get(self, major: int) -> Postgres:
        """The worker's server of this version, migrated. Raises ServerError where its programs are missing."""
        if major not in self.running:
            in_container = self.project is not None and major == NEWEST
            self.running[major] = self._container() if in_container else self.make(str(major), major)
            asyncio.run(migrate(self.running[major].url()))
        return self.running[major]

    def redis(self) -> Redis | Container:
        """The worker's Redis, started. Raises ServerError."""
        made = self.others.get("redis") or (
            Container(self.project, "redis") if self.project else Redis(self.folder / "redis")
        )
        assert not isinstance(made, RabbitMQ)
        return self._started("redis", made)

    def rabbitmq(self) -> RabbitMQ | Container:
        """The worker's RabbitMQ, started. Raises ServerError."""
        made = self.others.get("rabbitmq") or (
            Container(self.project, "rabbitmq") if self.project else RabbitMQ(self.folder / "rabbitmq")
        )
        assert not isinstance(made, Redis)
        return self._started("rabbitmq", made)

    def _started(self, name: str, server: S) -> S:
        if name not in self.others:
            server.start()
            self.others[name] = server
        return server

    def _container(self) -> Postgres:
        assert self.project is not None
        self.project.compose("up", "--detach", "--wait", "postgresql")
        return Postgres(self.folder, port=self.project.ports["postgresql"], password=self.project.password)

    def make(self, name: str, major: int = NEWEST, **options: str) -> Postgres:
        """Another started server, without the schema, for one test."""
        # PostgreSQL may run under another account, which needs access to its files.
        self.folder.chmod(0o755)
        binaries = postgres.wheel_binaries() if major == NEWEST else postgres.debian_binaries(major)
        server = postgres.prepare(self.folder / name, binaries, OPTIONS | options)
        server.start()
        return server

    def stop(self) -> None:
        """Ends all servers."""
        for server in self.running.values():
            server.kill()
        for other in self.others.values():
            other.stop()
        if self.project:
            self.project.compose("down", "--volumes", "--timeout", "5")
        shutil.rmtree(self.folder)
