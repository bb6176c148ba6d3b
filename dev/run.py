"""`make run`: the API, the expirer and their servers as processes of their own, with demo data, until Ctrl-C."""

import asyncio
import os
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx

from dev import demo, own_servers, parts
from dev.data_folder import FolderError, data_folder, kept_secret, opened
from dev.parts import Program, RunError, Stopped, say, stopping
from dev.processes import ServerError, free_port
from dev.welcome import Welcome, print_welcome
from service import settings
from service.errors import NotReady
from service.hosts import authority
from service.migrate import FAILURES, migrate, reason

ON_THIS_MACHINE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound to
"""The address for requests to a process that listens on all addresses."""
GUNICORN = [sys.executable, "-m", "gunicorn", "--config", "service/gunicorn.conf.py"]
EXPIRER = [sys.executable, "-m", "expirer"]


def main() -> None:
    """Runs until a signal; exits with 1 and a sentence after a failure. Leaves no process behind."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stopping.set())
    try:
        with opened(data_folder()) as folder, ExitStack() as stack:
            _run(folder, stack)
    except Stopped:
        say("stopped; the data stays for the next time")
    except (RunError, FolderError, NotReady, ServerError, demo.DemoError, httpx.HTTPError, OSError) as error:
        sys.exit(f"rowlock: {str(error) or type(error).__name__}")


def _run(folder: Path, stack: ExitStack) -> None:
    """Starts everything in order; the stack stops it in reverse order."""
    _set_defaults(folder)
    off = own_servers.switched_off()
    _check_ports()
    servers = own_servers.start(folder, off, stack)
    parts.go_on()
    loaded = settings.load()
    _migrate(loaded.database_url.get_secret_value())
    host = ON_THIS_MACHINE.get(loaded.host, loaded.host)
    api, expirer = (f"http://{authority(host, port)}" for port in (loaded.port, loaded.expirer_port))
    running = servers.parts.copy()
    for program in (
        Program("the API", GUNICORN, folder / "api.log", f"{api}/readyz"),
        Program("the expirer", EXPIRER, folder / "expirer.log", f"{expirer}/livez"),
    ):
        running.append(stack.enter_context(parts.started(program, stop_seconds_max=loaded.shutdown_seconds + 15)))
    seat_id = demo.load(api)
    print_welcome(Welcome(api, f"{expirer}/livez", _metrics(host, loaded), servers.addresses, seat_id, folder))
    parts.watch(running)


def _set_defaults(folder: Path) -> None:
    """Sets the variables that differ from production, unless the user has set them."""
    defaults = {
        "ROWLOCK_HOST": "127.0.0.1",
        "ROWLOCK_EXPIRER_PORT": str(free_port()),
        "ROWLOCK_METRICS_PORT": str(free_port()),
        "ROWLOCK_EXPIRER_METRICS_PORT": str(free_port()),
        "ROWLOCK_OPEN_MANAGER_SIGN_UP": "true",
        "ROWLOCK_LOG_FORMAT": "text",
        "ROWLOCK_TOKEN_SECRET": kept_secret(folder),
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    if os.environ["ROWLOCK_EXPIRER_PORT"] == "0":
        # Any free port; we must know which.
        os.environ["ROWLOCK_EXPIRER_PORT"] = defaults["ROWLOCK_EXPIRER_PORT"]


def _check_ports() -> None:
    """Raises NotReady where a setting is wrong, RunError where another process listens on one of our ports."""
    # Every setting is checked before anything is started; our database has no address yet.
    loaded = settings.load(database_url=os.environ.get("ROWLOCK_DATABASE_URL", "postgresql://not-yet"))
    for name, variable, port in (
        ("the API", "ROWLOCK_PORT", loaded.port),
        ("the expirer", "ROWLOCK_EXPIRER_PORT", loaded.expirer_port),
    ):
        with socket.socket(socket.AF_INET6 if ":" in loaded.host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((loaded.host, port))
            except OSError as error:
                raise RunError(
                    f"{name} can't listen on port {port} of {loaded.host} ({error.strerror}): set {variable} to another"
                    " port, or ROWLOCK_HOST to another address"
                ) from None


def _migrate(database_url: str) -> None:
    try:
        asyncio.run(migrate(database_url))
    except OSError as error:
        raise RunError(f"can't connect to the PostgreSQL of ROWLOCK_DATABASE_URL: {reason(error)}") from None
    except FAILURES as error:
        raise RunError(f"the database can't be brought to this release's schema: {reason(error)}") from None


def _metrics(host: str, loaded: settings.Settings) -> list[str]:
    ports = filter(None, (loaded.metrics_port, loaded.expirer_metrics_port))
    return [f"http://{authority(host, port)}/metrics" for port in ports]


if __name__ == "__main__":
    main()
