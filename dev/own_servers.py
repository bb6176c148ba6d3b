"""The PostgreSQL, Redis and RabbitMQ of `make run`: those that no variable names."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from dev import postgres
from dev.parts import Part, go_on, say
from dev.postgres import Postgres
from dev.servers import NotInstalled, RabbitMQ, Redis

DATABASE = "ROWLOCK_DATABASE_URL"
POSTGRES_OPTIONS = {"max_connections": "100", "shared_buffers": "128MB"}


@dataclass(frozen=True, slots=True)
class OptionalServer:
    """A server that the product does not need; `without` states the loss."""

    name: str
    variable: str
    make: Callable[[Path], Redis | RabbitMQ]
    without: str


OPTIONALS = (
    # RabbitMQ takes the longest to start, so it is launched first.
    OptionalServer(
        "RabbitMQ",
        "ROWLOCK_BROKER_URL",
        lambda folder: RabbitMQ(folder / "rabbitmq"),
        "unpaid seats are released by the sweep alone, and events are not published",
    ),
    OptionalServer(
        "Redis",
        "ROWLOCK_REDIS_URL",
        lambda folder: Redis(folder / "redis"),
        "PostgreSQL answers all reads, and each process counts requests on its own",
    ),
)


@dataclass(frozen=True, slots=True)
class Started:
    """The processes, and for each server that the product uses where it is."""

    parts: list[Part]
    addresses: dict[str, str]


def switched_off() -> set[str]:
    """The variables that are empty, which means: without this server. Removes them, since the product refuses them."""
    empty = {optional.variable for optional in OPTIONALS if os.environ.get(optional.variable) == ""}
    for variable in empty:
        del os.environ[variable]
    return empty


def start(folder: Path, off: set[str], stack: ExitStack) -> Started:
    """Starts the servers side by side and sets their variables; the stack stops them. Raises ServerError, Stopped."""
    variables = {DATABASE: "PostgreSQL"} | {optional.variable: optional.name for optional in reversed(OPTIONALS)}
    addresses = {name: f"the one of {variable}" for variable, name in variables.items() if variable in os.environ}
    own: dict[str, Postgres | Redis | RabbitMQ] = {}
    for optional in OPTIONALS:
        if optional.variable not in os.environ and (server := _launched(optional, folder, off, stack)):
            own[optional.name] = server
            os.environ[optional.variable] = addresses[optional.name] = server.url
    if DATABASE not in os.environ:
        own["PostgreSQL"] = database = _launched_postgres(folder, stack)
        os.environ[DATABASE] = addresses["PostgreSQL"] = database.url()
    for started in own.values():
        started.wait_until_up(go_on)
    parts = [Part(name, started.process, started.log) for name, started in own.items() if started.process]
    return Started(parts, {name: addresses[name] for name in variables.values() if name in addresses})


def _launched(optional: OptionalServer, folder: Path, off: set[str], stack: ExitStack) -> Redis | RabbitMQ | None:
    """A server that is starting; None where it is switched off or not installed, which is printed."""
    if optional.variable in off:
        say(f"{optional.name} is off, because {optional.variable} is empty: {optional.without}")
        return None
    server = optional.make(folder)
    stack.callback(server.stop)
    try:
        # After a hard end its data may be damaged; the product works with an empty one.
        server.forget()
        server.launch()
    except NotInstalled as error:
        say(f"{optional.name} is off, because {error}: {optional.without}")
        return None
    return server


def _launched_postgres(folder: Path, stack: ExitStack) -> Postgres:
    say(f"starting PostgreSQL on {folder}")
    server = postgres.prepare(folder / "postgresql", postgres.wheel_binaries(), POSTGRES_OPTIONS)
    stack.callback(server.stop)
    server.launch()
    return server
