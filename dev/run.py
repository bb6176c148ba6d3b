"""`make run`: PostgreSQL, the API and the expirer as processes of their own, with demo data, until Ctrl-C."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from dev import demo, postgres
from dev.data_folder import ROOT, FolderError, data_folder, kept_secret, opened
from service import settings
from service.errors import NotReady
from service.hosts import authority
from service.migrate import FAILURES, migrate, reason

START_SECONDS_MAX = 60
POLL_SECONDS = 0.1
LOG_LINES = 10
ON_THIS_MACHINE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound to
"""Where to ask what listens on all addresses."""
OWN_OPTIONS = {"max_connections": "100", "shared_buffers": "128MB"}

stopping = threading.Event()
"""Set by a signal. Looked at where we wait, so that no signal comes between starting a process and noting it."""


class RunError(Exception):
    """It can't run, or ended by itself; the message is for people."""


class Stopped(Exception):
    """Somebody wants it to end."""


@dataclass(frozen=True, slots=True)
class Part:
    """A process that must not end by itself."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def obituary(self) -> str:
        """That it ended, and the last that it has said."""
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return f"{self.name} ended with {self.process.returncode}; {self.log} ends with:\n" + "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where everything can be tried, as it is printed."""

    api: str
    livez: str
    metrics: str
    database: str


def main() -> None:
    """Runs until a signal comes; ends with 1 and a sentence where something is in the way. Leaves nothing running."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stopping.set())
    try:
        with opened(data_folder()) as folder, ExitStack() as stack:
            _run(folder, stack)
    except Stopped:
        _say("stopped; the data stays for the next time")
    except (RunError, FolderError, NotReady, postgres.PostgresError, demo.DemoError, httpx.HTTPError, OSError) as error:
        sys.exit(f"rowlock: {str(error) or type(error).__name__}")


def _run(folder: Path, stack: ExitStack) -> None:
    """Starts everything in its order; the stack stops it in the opposite one."""
    _set_defaults(folder)
    port = _free_port_from_settings()
    parts: list[Part] = []
    database = "the one of ROWLOCK_DATABASE_URL"
    if "ROWLOCK_DATABASE_URL" not in os.environ:
        _say(f"starting PostgreSQL on {folder}")
        server = stack.enter_context(postgres.running(_own_postgres(folder)))
        os.environ["ROWLOCK_DATABASE_URL"] = database = server.url()
        assert server.process is not None
        parts.append(Part("PostgreSQL", server.process, server.folder / "log"))
    _go_on()
    loaded = settings.load()
    try:
        asyncio.run(migrate(loaded.database_url.get_secret_value()))
    except OSError as error:
        raise RunError(f"can't connect to the PostgreSQL of ROWLOCK_DATABASE_URL: {reason(error)}") from None
    except FAILURES as error:
        raise RunError(f"the database can't be brought to this release's schema: {reason(error)}") from None
    host = ON_THIS_MACHINE.get(loaded.host, loaded.host)
    api = f"http://{authority(host, port)}"
    gunicorn = [sys.executable, "-m", "gunicorn", "--config", "service/gunicorn.conf.py"]
    expirer = [sys.executable, "-m", "expirer"]
    livez = f"http://{authority(host, loaded.expirer_port)}/livez"
    parts.append(stack.enter_context(_started("the API", gunicorn, folder / "api.log", f"{api}/readyz")))
    parts.append(stack.enter_context(_started("the expirer", expirer, folder / "expirer.log", livez)))
    _say_what_is_off(loaded)
    addresses = Addresses(api, livez, _metrics(host, loaded), database)
    _print_welcome(addresses, demo.load(api), folder)
    while all(part.process.poll() is None for part in parts):
        _go_on()
        stopping.wait(POLL_SECONDS)
    raise RunError("\n".join(part.obituary() for part in parts if part.process.poll() is not None))


def _go_on() -> None:
    if stopping.is_set():
        raise Stopped


def _set_defaults(folder: Path) -> None:
    """What differs from production; a variable of the user's wins."""
    defaults = {
        "ROWLOCK_HOST": "127.0.0.1",
        "ROWLOCK_EXPIRER_PORT": str(postgres.free_port()),
        "ROWLOCK_METRICS_PORT": str(postgres.free_port()),
        "ROWLOCK_EXPIRER_METRICS_PORT": str(postgres.free_port()),
        "ROWLOCK_OPEN_MANAGER_SIGN_UP": "true",
        "ROWLOCK_LOG_FORMAT": "text",
        "ROWLOCK_TOKEN_SECRET": kept_secret(folder),
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    if os.environ["ROWLOCK_EXPIRER_PORT"] == "0":
        # Any free one; we must know which.
        os.environ["ROWLOCK_EXPIRER_PORT"] = defaults["ROWLOCK_EXPIRER_PORT"]


def _free_port_from_settings() -> int:
    """The API's port. Raises NotReady, or RunError where somebody else listens on it."""
    # The database's address is not known yet, and everything else may be wrong already.
    loaded = settings.load(database_url=os.environ.get("ROWLOCK_DATABASE_URL", "postgresql://not-yet"))
    for what, variable, port in (
        ("the API", "ROWLOCK_PORT", loaded.port),
        ("the expirer", "ROWLOCK_EXPIRER_PORT", loaded.expirer_port),
    ):
        with socket.socket(socket.AF_INET6 if ":" in loaded.host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((loaded.host, port))
            except OSError as error:
                raise RunError(
                    f"port {port} of {loaded.host} can't be had for {what} ({error.strerror}); {variable} names "
                    "another port, ROWLOCK_HOST another address"
                ) from None
    return loaded.port


def _own_postgres(folder: Path) -> postgres.Postgres:
    account = postgres.Account.unprivileged()
    binaries = postgres.reachable_binaries(postgres.wheel_binaries(), account, folder)
    return postgres.prepare(folder / "postgresql", binaries, account, OWN_OPTIONS)


@contextmanager
def _started(name: str, command: list[str], log: Path, answers_at: str) -> Iterator[Part]:
    """A part of the product that answers already; it is ended with SIGTERM, and whatever it has started with it."""
    with log.open("ab") as output:
        # A session of its own: Ctrl-C is for us to pass on, in the right order.
        process = subprocess.Popen(  # noqa: S603 - our own command
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=postgres.end_with_parent,  # noqa: PLW1509 - it makes one call
        )
    part = Part(name, process, log)
    try:
        _wait_for_answer(part, answers_at)
        yield part
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(settings.load().shutdown_seconds + 15)
        with suppress(ProcessLookupError):
            # A worker whose master was killed.
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for_answer(part: Part, url: str) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while True:
        _go_on()
        try:
            if httpx.get(url, timeout=5).is_success:
                return
        except httpx.TransportError:
            pass
        if part.process.poll() is not None:
            raise RunError(part.obituary())
        if time.monotonic() > deadline:
            raise RunError(f"{part.name} did not answer within {START_SECONDS_MAX} s; {part.log} may say why")
        stopping.wait(POLL_SECONDS)


def _say_what_is_off(loaded: settings.Settings) -> None:
    if loaded.redis_url is None:
        _say("without ROWLOCK_REDIS_URL PostgreSQL answers all reads, and limits count in each process")
    if loaded.broker_url is None:
        _say("without ROWLOCK_BROKER_URL seats come back by the sweep, and nobody is told of events")


def _metrics(host: str, loaded: settings.Settings) -> str:
    ports = filter(None, (loaded.metrics_port, loaded.expirer_metrics_port))
    return ", ".join(f"http://{authority(host, port)}/metrics" for port in ports) or "none"


def _print_welcome(addresses: Addresses, seat_id: int, folder: Path) -> None:
    api = addresses.api
    sign_in = f'{{"email": "{demo.CUSTOMERS[0]}", "password": "{demo.PASSWORD}"}}'
    field = "python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])'"
    _say(f"""it runs
  try it in the browser   {api}/api-docs
  accounts                {demo.MANAGER}, {", ".join(demo.CUSTOMERS)}
  their password          {demo.PASSWORD}
  logs                    {folder}/api.log, {folder}/expirer.log
  health                  {api}/readyz, {addresses.livez}
  metrics                 {addresses.metrics}
  PostgreSQL              {addresses.database}
or in another terminal:
  curl -sS '{api}/customer/list-sessions'
  token=$(curl -sS {api}/sign-in -H 'Content-Type: application/json' -d '{sign_in}' | {field} token)
  curl -sS -X POST {api}/customer/book/{seat_id} -H "Authorization: Bearer $token"
Ctrl-C stops it.""")


def _say(text: str) -> None:
    sys.stdout.write(f"rowlock: {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
