"""PostgreSQL as a primary with one standby, by streaming replication, and the failover between the two."""

import asyncio
import shutil
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import psutil

from dev import postgres
from dev.postgres import Postgres
from dev.processes import Account, ServerError, free_port
from load.campaign.disk import Disk, mounted
from service.database import Connection

OPTIONS = {
    "synchronous_commit": "on",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "wal_level": "replica",
    "hot_standby": "on",
    "wal_receiver_status_interval": "1s",
    "wal_retrieve_retry_interval": "200ms",
    "deadlock_timeout": "50ms",
    "wal_keep_size": "128MB",
}
REPLICA_POLL_SECONDS, REPLICA_TRIES_MAX = 0.05, 600
ANSWER_TRIES_MAX = 60


@dataclass(slots=True)
class Pair:
    """Two servers; `servers[primary]` takes writes. With `synchronous` each commit waits for the standby.

    `disks` are the file systems of their data, where they have their own.
    """

    folder: Path
    servers: list[Postgres]
    synchronous: bool
    primary: int = 0
    disks: list[Disk] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Both servers, of which a client takes the primary."""
        return self.url_by(self.servers[0].port, self.servers[1].port)

    def url_by(self, *ports: int) -> str:
        """The same through other ports."""
        parts = urlsplit(self.servers[0].url())
        account = parts.netloc.rpartition("@")[0]
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        return f"postgresql://{account}@{hosts}{parts.path}?target_session_attrs=primary"

    @property
    def leader(self) -> Postgres:
        """The primary."""
        return self.servers[self.primary]

    @property
    def standby(self) -> Postgres:
        """The other server."""
        return self.servers[1 - self.primary]

    async def connect(self) -> Connection:
        """A connection of one's own to the primary."""
        return await asyncpg.connect(self.leader.url())

    async def start(self) -> None:
        """Starts the primary, copies it, starts the standby, and waits until it is in step."""
        await asyncio.to_thread(self.leader.start)
        await self.add_standby()

    async def fail_over(self) -> None:
        """Kills the primary at once and promotes the standby. `add_standby` makes a new standby."""
        await asyncio.to_thread(lose, self.leader)
        await asyncio.to_thread(self.standby.ensure_up)
        self.primary = 1 - self.primary
        connection = await asyncpg.connect(self.leader.url())
        try:
            await connection.execute("alter system set synchronous_standby_names = ''")
            await connection.execute("select pg_reload_conf()")
            assert await connection.fetchval("select pg_promote(true, 30)")
        finally:
            await connection.close()

    async def detach_standby(self) -> None:
        """The standby gets no more commits. Only an asynchronous one can be left behind like this."""
        connection = await asyncpg.connect(self.standby.url())
        try:
            await connection.execute("alter system set primary_conninfo = ''")
            await connection.execute("select pg_reload_conf()")
            await _until(connection, IS_DETACHED)
        finally:
            await connection.close()

    async def add_standby(self) -> None:
        """Makes the other server a standby of the primary, from a new copy of it."""
        other = self.servers[1 - self.primary]
        await asyncio.to_thread(other.kill)
        await asyncio.to_thread(self._copy, other)
        await asyncio.to_thread(other.start)
        connection = await self.connect()
        try:
            await _until(connection, IS_STREAMING)
            if self.synchronous:
                await connection.execute("alter system set synchronous_standby_names = '*'")
                await connection.execute("select pg_reload_conf()")
                await _until(connection, IS_SYNCHRONOUS)
        finally:
            await connection.close()

    def _copy(self, other: Postgres) -> None:
        """`pg_basebackup` with the settings of a standby, as the account that runs the servers."""
        data = other.folder / "data"
        shutil.rmtree(data, ignore_errors=True)
        leader = self.leader.url().replace("/postgres", "/postgres?application_name=standby")
        command = [str(self.leader.binaries / "pg_basebackup"), "--pgdata", str(data), "--dbname", leader]
        command += ["--write-recovery-conf", "--wal-method", "stream", "--checkpoint", "fast", "--no-sync"]
        result = self.leader.account.run(command, cwd=other.folder)
        if result.returncode != 0:
            raise ServerError(f"pg_basebackup failed: {result.stderr}")

    async def recover(self, server: Postgres) -> None:
        """Starts the server where it has ended, and returns when it answers and the standby follows the primary."""
        if not await _answers(server):
            # PostgreSQL 18.4 was seen to wait for ever after its startup process had failed in a crash's recovery.
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        connection = await self.connect()
        try:
            await _until(connection, IS_STREAMING)
        except ServerError:
            # The primary no longer has WAL that the standby lacks.
            await self.add_standby()
        finally:
            await connection.close()

    def count_deadlocks(self) -> int:
        """How many the two have ended, by their logs."""
        logs = [server.folder / "log" for server in self.servers]
        return sum(log.read_text(errors="replace").count("deadlock detected") for log in logs if log.exists())

    def stop(self) -> None:
        """Ends both, and removes their disks."""
        for server in self.servers:
            server.kill()
        for disk in self.disks:
            disk.unmount()


IS_STREAMING = "select exists (select from pg_stat_replication where state = 'streaming')"
IS_SYNCHRONOUS = "select exists (select from pg_stat_replication where sync_state in ('sync', 'quorum'))"
IS_DETACHED = "select not exists (select from pg_stat_wal_receiver)"


async def _answers(server: Postgres) -> bool:
    """Whether it takes connections, or does so soon."""
    for _ in range(ANSWER_TRIES_MAX):
        with suppress(OSError, asyncpg.PostgresError):
            await (await asyncpg.connect(server.url())).close()
            return True
        if not server.is_running():
            return False
        await asyncio.sleep(REPLICA_POLL_SECONDS)
    return False


async def _until(connection: Connection, question: str) -> None:
    """Returns when the answer is yes. Raises PostgresError where it does not come."""
    for _ in range(REPLICA_TRIES_MAX):
        if await connection.fetchval(question):
            return
        await asyncio.sleep(REPLICA_POLL_SECONDS)
    raise ServerError(f"the standby did not come: {question}")


def lose(server: Postgres) -> None:
    """As when its machine is lost: no process of it does anything any more, not even for those that it had answered."""
    assert server.process is not None
    first = psutil.Process(server.process.pid)
    server.pause()
    for process in (first, *first.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    server.kill()


def make(folder: Path, binaries: Path, *, synchronous: bool, own_disks: bool = False) -> Pair:
    """Two servers below the folder, not yet started; with `own_disks` a fault may make the disk of each full."""
    # The servers' account must be able to enter it.
    folder.chmod(0o755)
    account = Account.unprivileged()
    folders = [folder / "one", folder / "two"]
    for its in folders:
        its.mkdir(mode=0o700)
        account.take(its)
    disks = [mounted(its / "data", account) for its in folders] if own_disks else []
    first = postgres.prepare(folders[0], binaries, OPTIONS)
    second = replace(first, folder=folders[1], port=free_port())
    return Pair(folder, [first, second], synchronous, disks=disks)
