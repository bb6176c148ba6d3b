"""The servers of one test worker, each started when a test first wants it.

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
    # A crash of the machine is not what is tested; a crash of the server is, and it loses nothing without fsync.
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
    """Starts each server when a test first wants it; `stop` ends them and removes their files."""

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="rowlock-tests-")))
    running: dict[int, Postgres] = field(default_factory=dict)
    others: dict[str, Redis | RabbitMQ | Container] = field(default_factory=dict)
    project: Project | None = field(default_factory=lambda: Project() if AS_CONTAINERS else None)

    def get(self, major: int) -> Postgres:
        """The server of this worker, migrated. Raises PostgresError where its binaries are missing."""
        if major not in self.running:
            in_container = self.project is not None and major == NEWEST
            self.running[major] = self._container() if in_container else self.make(str(major), major)
            asyncio.run(migrate(self.running[major].url()))
        return self.running[major]

    def redis(self) -> Redis | Container:
        """The Redis of this worker, which is up. Raises ServerError."""
        made = self.others.get("redis") or (
            Container(self.project, "redis") if self.project else Redis(self.folder / "redis")
        )
        assert not isinstance(made, RabbitMQ)
        return self._started("redis", made)

    def rabbitmq(self) -> RabbitMQ | Container:
        """The RabbitMQ of this worker, which is up. Raises ServerError."""
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
        account = postgres.Account.unprivileged()
        return Postgres(Path(), self.folder, account, self.project.ports["postgresql"], self.project.password, {})

    def make(self, name: str, major: int = NEWEST, **options: str) -> Postgres:
        """A started server of one's own, without the schema."""
        # Its owner is another account, which must be able to get to its files.
        self.folder.chmod(0o755)
        account = postgres.Account.unprivileged()
        binaries = postgres.wheel_binaries() if major == NEWEST else postgres.debian_binaries(major)
        binaries = postgres.reachable_binaries(binaries, account, self.folder)
        server = postgres.prepare(self.folder / name, binaries, account, OPTIONS | options)
        server.start()
        return server

    def stop(self) -> None:
        """Ends all servers."""
        for server in self.running.values():
            server.stop(immediate=True)
        for other in self.others.values():
            other.stop()
        if self.project:
            self.project.compose("down", "--volumes", "--timeout", "5")
        shutil.rmtree(self.folder)
