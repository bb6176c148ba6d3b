"""The PostgreSQL servers of one test worker: the newest from the wheel, the oldest that is supported from Debian."""

import asyncio
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from dev import postgres
from dev.postgres import Postgres
from service.migrate import migrate

NEWEST, OLDEST = 18, 15
OPTIONS = {
    # A crash of the machine is not what is tested; a crash of the server is, and it loses nothing without fsync.
    "fsync": "off",
    "max_connections": "300",
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

    def get(self, major: int) -> Postgres:
        """The server of this worker, migrated. Raises PostgresError where its binaries are missing."""
        if major not in self.running:
            self.running[major] = self.make(str(major), major)
            asyncio.run(migrate(self.running[major].url()))
        return self.running[major]

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
        shutil.rmtree(self.folder)
