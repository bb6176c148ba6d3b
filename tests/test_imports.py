"""The house's one-way doors: who imports whom, what is pure, where SQL may stand, and that importing does nothing."""

import os
import re
import subprocess
import sys

import pytest

from tests.sources import ROOT, imports, modules, nameless_sql, reaches, statements

PURE = {"service.errors": set[str](), "service.reservation": {"service.errors"}}
PURE |= {"service.claims": {"service.errors", "service.reservation"}}
"""The modules without a clock and a database, and what else of the product they may import."""

WRITES_OF_SEATS = {"service.expiring", "service.holding", "service.settling"}
SEATS_ARE_MADE_BY = {"service.sessions.INSERT_SEATS"}

LEDGER = ("accounts", "cursors", "database", "eventlog", "listings", "migrate", "numbering", "seatreads", "sessions")
LOOKS = ("audit", "holdaudit", "loggaps", "logaudit", "newest", "mapaudit", "untold", "observations", "verdicts")
MAY_HOLD_SQL = WRITES_OF_SEATS | {f"service.{name}" for name in LEDGER + LOOKS} | {"expirer.queues"}
NAMELESS_SQL = {
    ("service.database", "begin"),
    ("service.database", "commit"),
    ("service.database", "rollback"),
    ("service.migrate", "select max(version_num) from alembic_version"),
    # No SQL: a script for Redis, what an operator says, and the first word of a statement.
    ("service.statements", "with"),
    ("service.seatcache", "begin"),
    ("expirer.parked", "drop"),
    ("expirer.cursors", "drop"),
}

CHANGES = re.compile(r"\b(insert\s+into|update|delete\s+from|truncate)\s+(seats|reservations)\b")
LOCKS = re.compile(
    r"\b(from|join)\s+(seats|reservations)\b.*\bfor\s+(no\s+key\s+update|update|share|key\s+share)\b", re.DOTALL
)


def of_package(package: str) -> list[str]:
    """The modules of a package."""
    return [name for name in modules() if name == package or name.startswith(f"{package}.")]


def test_the_sources_are_read() -> None:
    assert {"service", "service.app", "service.api.customer", "expirer.__main__"} <= modules().keys()
    assert "service.database" in imports("service.holding")
    assert "service.errors" in reaches("service.booking")
    assert "service.holding.LOCK_CUSTOMERS" in statements()


@pytest.mark.parametrize("name", of_package("service"))
def test_the_service_does_not_know_the_expirer_nor_the_tests_nor_what_only_developing_needs(name: str) -> None:
    assert {module.partition(".")[0] for module in imports(name)}.isdisjoint({"expirer", "dev", "tests"})


@pytest.mark.parametrize("name", of_package("expirer"))
def test_the_expirer_goes_through_the_ledger_and_never_through_http(name: str) -> None:
    assert {module.partition(".")[0] for module in imports(name)}.isdisjoint({"dev", "tests", "fastapi"})
    assert not {module for module in reaches(name) if module == "service.app" or module.startswith("service.api")}


@pytest.mark.parametrize("name", sorted(set(of_package("service")) - set(of_package("service.api")) - {"service.app"}))
def test_nothing_below_the_edge_knows_http(name: str) -> None:
    assert not {module for module in reaches(name) if module == "service.app" or module.startswith("service.api")}
    assert {module.partition(".")[0] for module in imports(name)}.isdisjoint({"fastapi", "starlette", "uvicorn"})


@pytest.mark.parametrize("name", of_package("service.api"))
def test_routes_do_not_know_the_wiring(name: str) -> None:
    assert "service.app" not in reaches(name)


@pytest.mark.parametrize(("name", "allowed"), PURE.items(), ids=PURE)
def test_what_decides_is_pure(name: str, allowed: set[str]) -> None:
    foreign = {module for module in imports(name) if module.partition(".")[0] not in sys.stdlib_module_names}
    assert foreign <= allowed
    assert not imports(name) & {"asyncio", "os", "random", "socket", "threading", "time"}


def test_only_the_two_writes_lock_or_change_seats_and_reservations() -> None:
    found = {name for name, text in statements().items() if CHANGES.search(text) or LOCKS.search(text)}
    assert {name.rpartition(".")[0] for name in found - SEATS_ARE_MADE_BY} == WRITES_OF_SEATS


def test_statements_stand_only_in_the_files_that_may_hold_sql() -> None:
    assert {name.rpartition(".")[0] for name in statements()} <= MAY_HOLD_SQL


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
for name in sorted(names - {"service.migrations.env"}):
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
    assert set(result.stdout.split()) >= {name for name in modules() if "versions" not in name}
