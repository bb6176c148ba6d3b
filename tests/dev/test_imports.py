"""The house's one-way doors: who imports whom, what is pure, where SQL may stand, and that importing does nothing."""

import os
import re
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest

from tests.stage.sources import ROOT, imports, modules, nameless_sql, reaches, statements

BOTTOM = {
    "service.backoff",
    "service.errors",
    "service.hosts",
    "service.migrations",
    "service.moments",
    "service.reservation",
    "service.settings",
    "service.single_flight",
}
"""They may be imported by every package, and import nothing of the product but each other."""
LOW = BOTTOM | {"service.observability"}
STORES = LOW | {"service.database", "service.cache"}

MAY_IMPORT = {
    **dict.fromkeys(BOTTOM, BOTTOM),
    "service": set[str](),
    "service.observability": BOTTOM,
    "service.startup": LOW,
    "service.database": LOW | {"service.startup"},
    "service.cache": STORES,
    "service.events": STORES,
    "service.accounts": STORES,
    "service.admission": STORES,
    "service.ledger": STORES | {"service.events"},
    "service.broker": STORES | {"service.events"},
    "service.seatmap": STORES,
    "service.sessions": STORES | {"service.events", "service.ledger", "service.seatmap"},
    "service.audit": STORES | {"service.events", "service.ledger", "service.seatmap"},
    "service.migrate": STORES,
    "service.make_manager": STORES | {"service.accounts"},
    "service.smoke": set[str](),
}
"""What each package of the service may import, downwards only; `service.api` and `service.app` may import all of it."""
LOWER = set(MAY_IMPORT)
MAY_IMPORT |= {
    "service.api": LOWER,
    "service.app": LOWER | {"service.api"},
    "expirer": LOWER | {"expirer.loops", "expirer.commands", "expirer.lease", "expirer.thread"},
    "expirer.lease": LOWER,
    "expirer.thread": set[str](),
    "expirer.loops": LOWER | {"expirer.lease", "expirer.thread"},
    "expirer.commands": LOWER,
}

PURE = (
    "service.errors",
    "service.reservation",
    "service.ledger.claims",
    "service.ledger.cooldown",
    "service.admission.windows",
)
"""The modules without a clock and a database."""

MAY_HOLD_SQL = ("accounts", "audit", "database", "events", "ledger", "migrate", "seatmap", "sessions", "startup")
HOLDS_SQL_TOO = {"expirer.loops.queues"}
MAKES_SEATS = "service.sessions.creation.INSERT_SEATS"
NAMELESS_SQL = {
    ("service.database", "begin"),
    ("service.database", "commit"),
    ("service.database", "rollback"),
    ("service.migrate", "select max(version_num) from alembic_version"),
    # No SQL: advice for an operator, a script for Redis, what an operator says, and the first word of a statement.
    ("service.startup", "alter role  set  = 'ms'"),
    ("service.observability.statements", "with"),
    ("service.seatmap.keys", "begin"),
    ("expirer.commands.parked", "drop"),
    ("expirer.commands.cursors", "drop"),
}

CHANGES = re.compile(r"\b(insert\s+into|update|delete\s+from|truncate)\s+(seats|reservations)\b")
LOCKS = re.compile(
    r"\b(from|join)\s+(seats|reservations)\b.*\bfor\s+(no\s+key\s+update|update|share|key\s+share)\b", re.DOTALL
)


def package_of(module: str) -> str:
    """The package whose rule counts for a module: the longest name in MAY_IMPORT that contains it."""
    containing = [name for name in MAY_IMPORT if f"{module}.".startswith(f"{name}.")]
    return max(containing, key=len)


def foreign(module: str) -> set[str]:
    """The top-level packages that a module imports and that are neither the product's nor Python's."""
    tops = {imported.partition(".")[0] for imported in imports(module)}
    return tops - {"service", "expirer"} - sys.stdlib_module_names


def test_the_sources_are_read() -> None:
    assert {"service", "service.app", "service.api.customer", "expirer.__main__"} <= modules().keys()
    assert "service.database" in imports("service.ledger.holding")
    assert "service.errors" in reaches("service.ledger.booking")
    assert "service.ledger.holding.LOCK_CUSTOMERS" in statements()


@pytest.mark.parametrize("name", modules())
def test_packages_import_downwards_only(name: str) -> None:
    package = package_of(name)
    assert {package_of(module) for module in imports(name) & modules().keys()} <= MAY_IMPORT[package] | {package}


def test_every_module_of_the_service_has_a_rule() -> None:
    assert {name for name in modules() if package_of(name) == "service"} == {"service"}


def test_packages_make_no_circle() -> None:
    graph = {
        package: {package_of(module) for name in members for module in imports(name) & modules().keys()} - {package}
        for package, members in by_package().items()
    }
    list(TopologicalSorter(graph).static_order())


def by_package() -> dict[str, list[str]]:
    """The modules of each package that has a rule."""
    found: dict[str, list[str]] = {}
    for name in modules():
        found.setdefault(package_of(name), []).append(name)
    return found


@pytest.mark.parametrize("name", modules())
def test_the_product_imports_no_tests_and_no_tools(name: str) -> None:
    assert foreign(name).isdisjoint({"dev", "load", "tests"})


@pytest.mark.parametrize("name", [name for name in modules() if package_of(name) not in {"service.api", "service.app"}])
def test_nothing_below_the_edge_knows_http(name: str) -> None:
    # The expirer answers its probe with Starlette.
    allowed = {"starlette", "uvicorn"} if name == "expirer.__main__" else set[str]()
    assert foreign(name) & {"fastapi", "starlette", "uvicorn"} <= allowed


@pytest.mark.parametrize("name", PURE)
def test_decisions_are_pure(name: str) -> None:
    assert imports(name) & modules().keys() <= set(PURE)
    assert not foreign(name)
    assert not imports(name) & {"asyncio", "os", "random", "socket", "threading", "time"}


def test_only_the_ledger_locks_or_changes_seats_and_reservations() -> None:
    found = {name for name, text in statements().items() if CHANGES.search(text) or LOCKS.search(text)}
    assert {package_of(name) for name in found - {MAKES_SEATS}} == {"service.ledger"}


def test_sql_stands_only_in_the_packages_that_may_hold_it() -> None:
    holders = {name.rpartition(".")[0] for name in statements()}
    assert {package_of(name) for name in holders - HOLDS_SQL_TOO} <= {f"service.{name}" for name in MAY_HOLD_SQL}


def test_statements_have_names_in_capitals() -> None:
    assert all(name.rpartition(".")[2].isupper() for name in statements())
    assert set(nameless_sql()) == NAMELESS_SQL


DO_NOTHING = """
import logging, os, pkgutil, signal, sys, threading

FORBIDDEN = {"socket.connect", "socket.bind", "subprocess.Popen", "os.fork", "os.mkdir"}

def refuse(event, arguments):
    assert event not in FORBIDDEN, f"{event} {arguments}"
    assert event != "open" or arguments[1] in (None, "r", "rb"), f"open {arguments}"

sys.dont_write_bytecode = True
sys.addaudithook(refuse)

import sqlalchemy.ext.asyncio
import structlog
from service import settings

def used(*_arguments, **_options):
    raise AssertionError("used while importing")

settings.Settings.__init__ = used
sqlalchemy.ext.asyncio.create_async_engine = used
threading.Thread.start = used
signals = {number: signal.getsignal(number) for number in signal.valid_signals()}
loggers = logging.root.handlers[:], logging.root.level

import expirer, service
names = {"expirer", "service"}
for package in (expirer, service):
    names |= {module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")}
for name in sorted(names):
    __import__(name)

assert threading.active_count() == 1
assert (logging.root.handlers, logging.root.level) == loggers
assert not structlog.is_configured()
assert {number: signal.getsignal(number) for number in signal.valid_signals()} == signals
print("\\n".join(sorted(names)))
"""


def test_importing_every_module_does_nothing() -> None:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("ROWLOCK_")}
    result = subprocess.run(
        [sys.executable, "-c", DO_NOTHING], cwd=ROOT, env=variables, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert set(result.stdout.split()) >= modules().keys()
