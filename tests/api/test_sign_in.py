"""Sign-in under attack: the same work for every address, delays after failures, bounded hashing off the event loop."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from statistics import median
from typing import ClassVar, Literal

import pytest
from argon2 import PasswordHasher
from sqlalchemy.ext.asyncio import AsyncEngine

from service.accounts import accounts
from service.accounts import passwords as passwords_module
from service.accounts.accounts import FORGET_FAILURES_MINUTES, Attempt, NewAccount
from service.accounts.delays import DELAY_MS, Delays
from service.accounts.passwords import NICENESS, Passwords
from service.accounts.tokens import Role
from service.accounts.turns import Asker
from service.database import Connection
from service.errors import Busy, WrongCredentials
from service.settings import Settings
from tests.conftest import serving
from tests.stage.edge import Refused, ledger
from tests.stage.waiting import until

EMAIL, OTHER, NOBODY = "ada@example.com", "grace@example.com", "nobody@example.com"
PASSWORD, WRONG = "correct horse battery", "wrong horse battery"
ADDRESS = "203.0.113.1"
BUSY = Refused(503, "busy", says="password")


class NotedHasher(PasswordHasher):
    """Notes in which thread each check runs, and waits for the gate before it makes a hash."""

    gate = threading.Event()
    waiting = threading.Event()
    checked_in: ClassVar[list[str]] = []
    niceness: ClassVar[list[int]] = []

    def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
        """As it is, after the gate has been opened."""
        self.niceness.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        self.waiting.set()
        assert self.gate.wait(20)
        return super().hash(password, salt=salt)

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002 - its name there
        """As it is."""
        self.checked_in.append(threading.current_thread().name)
        return super().verify(hash, password)


class NotedDelays(Delays):
    """Notes how many failures each sign-in waits for, and waits for none."""

    def __init__(self) -> None:
        super().__init__(delay_ms_max=3_000)
        self.noted: list[int] = []

    async def wait(self, failures: int) -> None:
        """Returns at once."""
        self.noted.append(failures)


@pytest.fixture
def hasher(monkeypatch: pytest.MonkeyPatch) -> type[NotedHasher]:
    """The hasher of every `Passwords` that is made; its gate is open."""
    monkeypatch.setattr(passwords_module, "PasswordHasher", NotedHasher)
    NotedHasher.gate.set()
    NotedHasher.checked_in.clear()
    return NotedHasher


@pytest.fixture
async def passwords(engine: AsyncEngine, hasher: type[NotedHasher]) -> AsyncIterator[Passwords]:
    """With two accounts signed up."""
    assert hasher.gate.is_set()
    made = Passwords(queue_max=64)
    for email in (EMAIL, OTHER):
        await accounts.sign_up(engine, made, NewAccount(email, PASSWORD, "Somebody", Role.CUSTOMER))
    yield made
    made.close()


async def attempt(
    engine: AsyncEngine, passwords: Passwords, delays: Delays, email: str = EMAIL, password: str = WRONG
) -> bool:
    """Whether the sign-in succeeds."""
    try:
        await accounts.sign_in(engine, passwords, delays, Attempt(email, password, ADDRESS))
    except WrongCredentials:
        return False
    return True


async def test_every_address_costs_one_check_in_the_thread_of_argon2(
    engine: AsyncEngine, passwords: Passwords, hasher: type[NotedHasher]
) -> None:
    delays = NotedDelays()
    for number, (email, password) in enumerate([(EMAIL, PASSWORD), (EMAIL, WRONG), (NOBODY, PASSWORD)], 1):
        assert await attempt(engine, passwords, delays, email, password) is (number == 1)
        assert hasher.checked_in == ["argon2_0"] * number


async def test_an_unknown_address_takes_as_long_as_a_wrong_password(engine: AsyncEngine, passwords: Passwords) -> None:
    delays = NotedDelays()
    took: dict[str, list[float]] = {EMAIL: [], NOBODY: []}
    for _ in range(9):
        for email, times in took.items():
            began = time.perf_counter()
            assert not await attempt(engine, passwords, delays, email)
            times.append(time.perf_counter() - began)
    assert 0.4 < median(took[EMAIL]) / median(took[NOBODY]) < 2.5


async def test_failures_are_counted_by_address_until_a_success(
    engine: AsyncEngine, passwords: Passwords, sql: Connection
) -> None:
    delays = NotedDelays()
    for email in (EMAIL, EMAIL.upper(), EMAIL.title()):
        assert not await attempt(engine, passwords, delays, email)
    assert await attempt(engine, passwords, delays, OTHER, PASSWORD)
    assert await attempt(engine, passwords, delays, EMAIL, PASSWORD)
    assert not await attempt(engine, passwords, delays)
    assert delays.noted == [0, 1, 2, 0, 3, 0]
    assert await sql.fetchval("select count(*) from sign_in_failures") == 1


async def test_failures_of_an_unknown_address_are_counted_too(engine: AsyncEngine, passwords: Passwords) -> None:
    delays = NotedDelays()
    for _ in range(3):
        assert not await attempt(engine, passwords, delays, NOBODY)
    assert delays.noted == [0, 1, 2]


@pytest.mark.parametrize(("minutes", "counted"), [(FORGET_FAILURES_MINUTES + 1, 0), (FORGET_FAILURES_MINUTES - 1, 5)])
async def test_failures_are_forgotten_after_a_quarter_of_an_hour(
    minutes: int, counted: int, engine: AsyncEngine, passwords: Passwords, sql: Connection
) -> None:
    delays = NotedDelays()
    for _ in range(5):
        assert not await attempt(engine, passwords, delays)
    await sql.execute("update sign_in_failures set last_at = last_at - make_interval(mins => $1)", minutes)
    assert not await attempt(engine, passwords, delays)
    assert delays.noted[-1] == counted


async def test_attempts_at_once_delay_each_other_too(engine: AsyncEngine, passwords: Passwords) -> None:
    delays = NotedDelays()
    await asyncio.gather(*(attempt(engine, passwords, delays) for _ in range(8)))
    assert sorted(delays.noted) == list(range(8))


def test_each_failure_after_three_doubles_the_delay() -> None:
    delays = Delays(delay_ms_max=3_000)
    expected = [DELAY_MS, 200, 400, 800, 1_600, 3_000, 3_000]
    assert [delays.delay_ms(failures) for failures in (4, 5, 6, 7, 8, 9, 1_000)] == expected
    assert Delays(delay_ms_max=0).delay_ms(1_000) == 0


async def test_the_right_password_waits_for_the_delay_and_then_gets_in(
    engine: AsyncEngine, passwords: Passwords
) -> None:
    for _ in range(6):
        assert not await attempt(engine, passwords, NotedDelays())
    began = time.perf_counter()
    assert await attempt(engine, passwords, Delays(delay_ms_max=150), EMAIL, PASSWORD)
    assert time.perf_counter() - began >= 0.15


async def test_beyond_the_bound_a_sign_in_is_not_delayed() -> None:
    delays = Delays(delay_ms_max=60_000, delayed_max=2)
    delayed = [asyncio.create_task(delays.wait(20)) for _ in range(2)]
    await asyncio.sleep(0)
    await asyncio.wait_for(delays.wait(20), 20)
    for task in delayed:
        task.cancel()
    await asyncio.wait(delayed)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(delays.wait(20), 0.01)


async def test_a_full_queue_of_passwords_is_503_and_writes_nothing(sql: Connection, settings: Settings) -> None:
    one_waits = settings.model_copy(update={"password_queue_max": 1})
    async with serving(one_waits) as client:
        bodies = [{"email": f"{n}@example.com", "password": PASSWORD, "name": "Ada"} for n in range(5)]
        replies = await asyncio.gather(*(client.post("/sign-up", json=body) for body in bodies))
        refused = [reply for reply in replies if reply.status_code != 201]
        assert [BUSY.complaint(reply) for reply in refused] == [None] * 4
        assert all(int(reply.headers["Retry-After"]) >= 1 for reply in refused)
        assert await sql.fetchval("select count(*) from accounts") == 1
        before = await ledger(sql)
        # The place in the queue is free again.
        reply = await client.post("/sign-in", json={"email": NOBODY, "password": PASSWORD})
        assert reply.status_code == 401
    assert await ledger(sql) == before


@pytest.mark.parametrize("failures", [0, 1, 5])
async def test_a_sign_in_that_was_not_checked_is_no_failure(
    engine: AsyncEngine, passwords: Passwords, hasher: type[NotedHasher], sql: Connection, failures: int
) -> None:
    for _ in range(failures):
        assert not await attempt(engine, passwords, NotedDelays())
    one_at_a_time = Passwords(queue_max=1)
    hasher.gate.clear()
    hashing = asyncio.create_task(one_at_a_time.hash(WRONG, Asker(ADDRESS)))
    try:
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await attempt(engine, one_at_a_time, NotedDelays())
    finally:
        hasher.gate.set()
        await hashing
        one_at_a_time.close()
    assert await sql.fetchval("select coalesce(sum(failures), 0) from sign_in_failures") == failures


async def test_other_requests_are_answered_while_passwords_are_hashed(
    settings: Settings, hasher: type[NotedHasher]
) -> None:
    bodies = [{"email": f"{n}@example.com", "password": PASSWORD, "name": "Ada"} for n in range(5)]
    async with serving(settings) as client:
        hasher.gate.clear()
        hasher.waiting.clear()
        burst = [asyncio.create_task(client.post("/sign-up", json=body)) for body in bodies]
        try:

            async def is_waiting() -> bool:
                return hasher.waiting.is_set()

            await until(is_waiting, "a hash")
            for path in ("/livez", "/readyz", "/customer/list-sessions"):
                assert (await client.get(path)).status_code == 200
            assert not any(task.done() for task in burst)
        finally:
            hasher.gate.set()
        assert [reply.status_code for reply in await asyncio.gather(*burst)] == [201] * 5


async def test_the_hashing_thread_gives_way(hasher: type[NotedHasher], passwords: Passwords) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    await passwords.hash(WRONG, Asker(ADDRESS))
    assert hasher.niceness[-1] == max(NICENESS, own)
