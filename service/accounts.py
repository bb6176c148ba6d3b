"""Accounts: sign-up, sign-in, and how passwords are kept."""

import asyncio
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TypeVar
from uuid import UUID

import asyncpg
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from email_validator import EmailNotValidError, validate_email
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from service.database import Connection, snapshot, transaction
from service.errors import AddressInUse, Busy, WrongCredentials
from service.metrics import catalogue
from service.tokens import Principal, Role

FORGIVEN_FAILURES = 3
"""So many wrong passwords in a row cost nothing; each further one doubles the delay, from DELAY_MS on."""
DELAY_MS = 100
FORGET_FAILURES_MINUTES = 15
PASSWORD_BYTES_MAX = 1_024
DELAYED_MAX = 1_000

T = TypeVar("T")


class Passwords:
    """argon2id, off the event loop in one thread, with a bounded queue.

    One thread, because a hash takes a core for tens of milliseconds and the other requests want theirs.
    """

    def __init__(self, queue_max: int) -> None:
        self._hasher = PasswordHasher()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="argon2")
        self._queue_max = queue_max
        self._waiting = 0
        # Shown at 0 from the start: that nobody waits is not the same as that nobody knows.
        self._shown = catalogue.PASSWORDS_WAITING.of()
        # What a password for an unknown address is compared with, so that it takes as long.
        self._nobodys = self._hasher.hash("nobody's password")

    async def hash(self, password: str) -> str:
        """The hash to store. Raises Busy where too many wait."""
        return await self._run(lambda: self._hasher.hash(password))

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Whether it is the password; never for None, after the same time. Raises Busy where too many wait."""
        return await self._run(lambda: self._verify(password, password_hash))

    def close(self) -> None:
        """Ends the thread after the hash at hand."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _verify(self, password: str, password_hash: str | None) -> bool:
        try:
            self._hasher.verify(password_hash or self._nobodys, password)
        except (VerificationError, InvalidHashError):
            return False
        return password_hash is not None

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= self._queue_max:
            raise Busy("password check")
        self._waiting += 1
        try:
            with self._shown.track_inprogress(), catalogue.PASSWORD_SECONDS.of().time():
                return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._waiting -= 1


class Delays:
    """How long a sign-in waits after failures of its address: `delay_ms_max` at most, and DELAYED_MAX wait at once.

    The right password waits as long and then gets in, so nobody can lock somebody else out. Beyond DELAYED_MAX nobody
    waits here: more than one thread can check are refused by its queue anyway.
    """

    def __init__(self, delay_ms_max: int) -> None:
        self._delay_ms_max = delay_ms_max
        self._delayed = 0
        # Shown at 0 from the start, too.
        self._shown = catalogue.SIGN_INS_DELAYED.of()

    async def wait(self, failures: int) -> None:
        """Returns after the delay for so many failures."""
        if failures <= FORGIVEN_FAILURES or self._delayed >= DELAYED_MAX:
            return
        self._delayed += 1
        try:
            with self._shown.track_inprogress():
                await asyncio.sleep(self.delay_ms(failures) / 1000)
        finally:
            self._delayed -= 1

    def delay_ms(self, failures: int) -> int:
        """Doubles with each failure that is not forgiven; an exponent beyond 16 is beyond every maximum."""
        doublings = min(failures - FORGIVEN_FAILURES - 1, 16)
        return min(DELAY_MS << doublings, self._delay_ms_max)


@dataclass(frozen=True, slots=True)
class NewAccount:
    """Who signs up, with the password as it was typed."""

    email: str
    password: str = field(repr=False)
    name: str
    role: Role


def canonical(email: str) -> str:
    """The address as it is stored and looked for: however its domain is written, and in any case, which is not up to
    the database's locale. What is no address stays what it is, and is not found.
    """
    with suppress(EmailNotValidError):
        email = validate_email(email, check_deliverability=False).normalized
    return unicodedata.normalize("NFC", email.lower())


INSERT_ACCOUNT = """
insert into accounts (id, email, name, password_hash, role)
values ($1, $2, $3, $4, $5)
"""


async def sign_up(engine: AsyncEngine, passwords: Passwords, new: NewAccount) -> UUID:
    """The new account's id. Raises AddressInUse; an address is the same in upper and lower case."""
    account_id = uuid7()
    password_hash = await passwords.hash(new.password)
    try:
        async with transaction(engine) as connection:
            await connection.execute(
                INSERT_ACCOUNT, account_id, canonical(new.email), new.name, password_hash, new.role.value
            )
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "accounts_email":
            raise
        raise AddressInUse from None
    return account_id


# Counted as a failure before it is checked, so that attempts made at once delay each other too.
COUNT_ATTEMPT = """
insert into sign_in_failures as old (email_hash, failures, last_at)
values ($1, 1, clock_timestamp())
on conflict (email_hash) do update
set failures = case
        when old.last_at < clock_timestamp() - make_interval(mins => $2) then 1
        else least(old.failures + 1, 1000)
    end,
    last_at = clock_timestamp()
returning failures
"""

FIND_ACCOUNT = """
select id, name, role, password_hash
from accounts
where lower(email) = lower($1)
"""

FORGET_FAILURES = """
delete from sign_in_failures
where email_hash = $1
"""


async def sign_in(
    engine: AsyncEngine, passwords: Passwords, delays: Delays, email: str, password: str
) -> tuple[Principal, str]:
    """Who it is, and the name. Raises WrongCredentials, the same after the same time for an unknown address."""
    email = canonical(email)
    email_hash = sha256(email.encode()).digest()
    async with snapshot(engine) as connection:
        attempts = await connection.fetchval(COUNT_ATTEMPT, email_hash, FORGET_FAILURES_MINUTES)
        account = await connection.fetchrow(FIND_ACCOUNT, email)
    await delays.wait(attempts - 1)
    if not await passwords.verify(password, account["password_hash"] if account else None) or account is None:
        raise WrongCredentials
    async with snapshot(engine) as connection:
        await connection.execute(FORGET_FAILURES, email_hash)
    return Principal(account["id"], Role(account["role"])), account["name"]


# An array, because a join with so many, as the planner sees it, would scan the table.
TRIM_FAILURES = """
delete from sign_in_failures
where email_hash = any(array(
    select email_hash
    from sign_in_failures
    where last_at < statement_timestamp() - make_interval(mins => $1)
    order by last_at
    limit $2
    for update skip locked
))
"""


async def trim_failures(connection: Connection, batch_max: int) -> int:
    """Removes up to `batch_max` counts that are forgotten anyway; returns how many."""
    tag = await connection.execute(TRIM_FAILURES, FORGET_FAILURES_MINUTES, batch_max)
    return int(str(tag).removeprefix("DELETE "))


PROMOTE_ACCOUNT = """
update accounts
set role = 'MANAGER'
where lower(email) = lower($1)
"""


async def make_manager(engine: AsyncEngine, email: str) -> bool:
    """Gives the account the role MANAGER, from its next sign-in on; False where there is none."""
    async with transaction(engine) as connection:
        tag: str = await connection.execute(PROMOTE_ACCOUNT, canonical(email))
    return tag != "UPDATE 0"
