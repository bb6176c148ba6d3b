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
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from dev import demo, postgres
from dev.data_folder import ROOT, FolderError, data_folder, forget, kept_secret, opened
from service import settings
from service.errors import NotReady
from service.migrate import FAILURES, migrate, reason

START_SECONDS_MAX = 60
POLL_SECONDS = 0.1
LOG_LINES = 10
ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - compared with, not bound to
OWN_OPTIONS = {"max_connections": "100", "shared_buffers": "128MB"}

stopping = threading.Event()
"""Set by a signal. Looked at where we wait, so that no signal comes between starting a process and noting it."""


class RunError(Exception):
    """It can't run, or ended by itself; the message is for people."""


class Stopped(Exception):
    """Somebody wants it to end."""


def main() -> None:
    """Runs until a signal comes; ends with 1 and a sentence where something is in the way. Leaves nothing running."""
    if sys.argv[1:] == ["--forget"]:
        forget(data_folder())
        return
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
    if "ROWLOCK_DATABASE_URL" not in os.environ:
        _say(f"starting PostgreSQL on {folder}")
        server = stack.enter_context(postgres.running(_own_postgres(folder)))
        os.environ["ROWLOCK_DATABASE_URL"] = server.url()
    _go_on()
    loaded = settings.load()
    try:
        asyncio.run(migrate(loaded.database_url.get_secret_value()))
    except FAILURES as error:
        raise RunError(f"the database can't be brought to this release's schema: {reason(error)}") from None
    host = "127.0.0.1" if loaded.host == ANY_ADDRESS else loaded.host
    api = f"http://{host}:{port}"
    gunicorn = [sys.executable, "-m", "gunicorn", "--config", "service/gunicorn.conf.py"]
    processes = [
        stack.enter_context(_started(gunicorn, folder / "api.log", f"{api}/readyz")),
        stack.enter_context(
            _started(
                [sys.executable, "-m", "expirer"],
                folder / "expirer.log",
                f"http://{host}:{loaded.expirer_port}/livez",
            )
        ),
    ]
    _print_welcome(api, demo.load(api), folder)
    while all(process.poll() is None for process, _ in processes):
        _go_on()
        stopping.wait(POLL_SECONDS)
    raise RunError("\n".join(_obituary(process, log) for process, log in processes if process.poll() is not None))


def _go_on() -> None:
    if stopping.is_set():
        raise Stopped


def _set_defaults(folder: Path) -> None:
    """What differs from production; a variable of the user's wins."""
    defaults = {
        "ROWLOCK_HOST": "127.0.0.1",
        "ROWLOCK_EXPIRER_PORT": str(postgres.free_port()),
        "ROWLOCK_OPEN_MANAGER_SIGN_UP": "true",
        "ROWLOCK_TOKEN_SECRET": kept_secret(folder),
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def _free_port_from_settings() -> int:
    """The API's port. Raises NotReady, or RunError where somebody else listens on it."""
    # The database's address is not known yet, and everything else may be wrong already.
    loaded = settings.load(database_url=os.environ.get("ROWLOCK_DATABASE_URL", "postgresql://not-yet"))
    for what, variable, port in (
        ("the API", "ROWLOCK_PORT", loaded.port),
        ("the expirer", "ROWLOCK_EXPIRER_PORT", loaded.expirer_port),
    ):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((loaded.host, port))
            except OSError as error:
                raise RunError(
                    f"port {port} of {loaded.host} can't be had for {what} ({error.strerror}); {variable} names another"
                ) from None
    return loaded.port


def _own_postgres(folder: Path) -> postgres.Postgres:
    account = postgres.Account.unprivileged()
    binaries = postgres.reachable_binaries(postgres.wheel_binaries(), account, folder)
    return postgres.prepare(folder / "postgresql", binaries, account, OWN_OPTIONS)


@contextmanager
def _started(command: list[str], log: Path, answers_at: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A process of the product that answers already, with its log; it is ended with SIGTERM."""
    with log.open("ab") as output:
        # A session of its own: Ctrl-C is for us to pass on, in the right order.
        process = subprocess.Popen(  # noqa: S603 - our own command
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        _wait_for_answer(process, log, answers_at)
        yield process, log
    finally:
        process.terminate()
        try:
            process.wait(settings.load().shutdown_seconds + 15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_for_answer(process: subprocess.Popen[bytes], log: Path, url: str) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while True:
        _go_on()
        try:
            if httpx.get(url, timeout=5).is_success:
                return
        except httpx.TransportError:
            pass
        if process.poll() is not None:
            raise RunError(_obituary(process, log))
        if time.monotonic() > deadline:
            raise RunError(f"{url} did not answer within {START_SECONDS_MAX} s; {log} may say why")
        stopping.wait(POLL_SECONDS)


def _obituary(process: subprocess.Popen[bytes], log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
    return f"a process ended with {process.returncode}; {log} ends with:\n" + "\n".join(lines)


def _print_welcome(api: str, seat_id: int, folder: Path) -> None:
    sign_in = f'{{"email": "{demo.CUSTOMERS[0]}", "password": "{demo.PASSWORD}"}}'
    field = "python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])'"
    _say(f"""it runs
  try it in the browser   {api}/api-docs
  accounts                {demo.MANAGER}, {", ".join(demo.CUSTOMERS)}
  their password          {demo.PASSWORD}
  logs                    {folder}/api.log, {folder}/expirer.log
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
