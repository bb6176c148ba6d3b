"""A PgBouncer before a PostgreSQL: the system's package, or that of a newer Debian in an image (`make newest`)."""

import os
import re
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from dev.postgres import Postgres
from dev.processes import Account, Server

PROGRAM = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin") or shutil.which("pgbouncer")
IMAGE = os.environ.get("ROWLOCK_TEST_PGBOUNCER_IMAGE")
ROLE = "pooled"
LIMITS = {"statement_timeout": "5s", "lock_timeout": "2s", "idle_in_transaction_session_timeout": "5s"}
"""The defaults of the service, for `alter role`."""


def command(folder: Path | None = None) -> list[str]:
    """The program, which may read the folder; nothing where there is none."""
    if not IMAGE:
        return [PROGRAM] if PROGRAM else []
    volume = [f"--volume={folder}:{folder}:ro"] if folder else []
    return ["docker", "run", "--rm", "--network=host", "--user=postgres", *volume, IMAGE, "pgbouncer"]


def version() -> tuple[int, ...]:
    """The program's; nothing where there is none."""
    if not command():
        return ()
    said = subprocess.run([*command(), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\d+)\.(\d+)", said)
    assert found
    return tuple(map(int, found.groups()))


@dataclass(slots=True)
class PgBouncer(Server):
    """Two sessions of PostgreSQL for all clients, of a role that is no superuser."""

    postgres: Postgres = field(kw_only=True)
    password: str = field(kw_only=True)
    options: Mapping[str, str] = field(kw_only=True)

    @property
    def url(self) -> str:
        """How to connect."""
        return f"postgresql://{ROLE}:{self.password}@127.0.0.1:{self.port}/postgres"

    def launch(self) -> None:
        """Starts the process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        (self.folder / "users").write_text(f'"{ROLE}" "{self.password}"\n')
        options = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": str(self.folder / "users"),
            "default_pool_size": "2",
            **self.options,
        }
        address = urlsplit(self.postgres.url())
        lines = ["[databases]", f"postgres = host=127.0.0.1 port={address.port}", "[pgbouncer]"]
        (self.folder / "ini").write_text("\n".join([*lines, *(f"{name} = {value}" for name, value in options.items())]))
        self._run([*command(self.folder), str(self.folder / "ini")])


@asynccontextmanager
async def pgbouncer_before(
    postgres: Postgres, folder: Path, options: Mapping[str, str], limits: Mapping[str, str] = LIMITS
) -> AsyncIterator[PgBouncer]:
    """A PgBouncer with these options, for a role with these limits."""
    superuser = await asyncpg.connect(postgres.url())
    password = secrets.token_hex(8)
    await superuser.execute(f"create role {ROLE} login password '{password}'")
    await superuser.execute(f"grant all on all tables in schema public to {ROLE}")
    for name, value in limits.items():
        await superuser.execute(f"alter role {ROLE} set {name} = '{value}'")
    # The image has an account of its own.
    account = Account() if IMAGE else postgres.account
    pooler = PgBouncer(folder, account=account, postgres=postgres, password=password, options=options)
    try:
        pooler.start()
        yield pooler
    finally:
        pooler.stop()
        await superuser.execute(f"drop owned by {ROLE}; drop role {ROLE}")
        await superuser.close()
