"""PostgreSQL, Redis and RabbitMQ for one measurement, configured as in production: a commit waits for the disk."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dev import postgres
from dev.postgres import Postgres
from dev.servers import RabbitMQ, Redis

OPTIONS = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "shared_buffers": "256MB"}


@dataclass(frozen=True, slots=True)
class Servers:
    """They are running. The database has no schema yet."""

    postgres: Postgres
    redis: Redis
    rabbitmq: RabbitMQ


@contextmanager
def measured() -> Iterator[Servers]:
    """Starts all three with their files below TMPDIR, and always stops and removes them.

    Raises ServerError.
    """
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="rowlock-load-"))
        stack.callback(shutil.rmtree, folder)
        servers = Servers(_prepare(folder), Redis(folder / "redis"), RabbitMQ(folder / "rabbitmq"))
        stack.enter_context(postgres.running(servers.postgres))
        for other in (servers.redis, servers.rabbitmq):
            stack.callback(other.stop)
            other.start()
        yield servers


def _prepare(folder: Path) -> Postgres:
    # PostgreSQL runs under another account, which must be able to reach its files.
    folder.chmod(0o755)
    return postgres.prepare(folder / "postgresql", postgres.wheel_binaries(), OPTIONS)
