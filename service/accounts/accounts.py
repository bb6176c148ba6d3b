"""Accounts: sign-up, sign-in and roles."""

import unicodedata
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from uuid import UUID

import asyncpg
from email_validator import EmailNotValidError, validate_email
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from service.accounts.delays import Delays
from service.accounts.passwords import Passwords
from service.accounts.tokens import Principal, Role
from service.accounts.turns import Asker
from service.database import Connection, snapshot, transaction
from service.errors import AddressInUse, Busy, IdempotencyKeyReused, WrongCredentials

FORGET_FAILURES_MINUTES = 15


@dataclass(frozen=True, slots=True)
class NewAccount:
    """An account that signs up, with the password as it was typed."""

    email: str
    password: str = field(repr=False)
    name: str
    role: Role
    key: str | None = None
    client_address: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A sign-in, with the password as it was typed and the client's address in the network."""

    email: str
    password: str = field(repr=False)
    client_address: str


@dataclass(frozen=True, slots=True)
class SignedUp:
    """The account's id. `replayed`: an earlier request with the same key has created it."""

    account_id: UUID
    replayed: bool = False


def canonical(email: str) -> str:
    """The address as it is stored and searched: one spelling of its domain, without spaces around it, in lower case
    whatever the database's locale. An invalid address is not found.
    """
    email = email.strip()
    with suppress(EmailNotValidError):
        email = validate_email(email, check_deliverability=False).normalized
    return unicodedata.normalize("NFC", email.lower())


INSERT_ACCOUNT = """
insert into accounts (id, email, name, password_hash, role, sign_up_key)
values ($1, $2, $3, $4, $5, $6)
"""

FIND_SIGN_UP = """
select id, name, role, password_hash
from accounts
where lower(email) = lower($1)
and sign_up_key = $2
"""


async def sign_up(engine: AsyncEngine, passwords: Passwords, new: NewAccount) -> SignedUp:
    """The new account, or the one that an earlier request with the same key has created.

    Raises AddressInUse, also where an address differs in case only, and IdempotencyKeyReused for other content.
    """
    account_id = uuid7()
    password_hash = await passwords.hash(new.password, Asker(new.client_address))
    try:
        async with transaction(engine) as connection:
            await connection.execute(
                INSERT_ACCOUNT, account_id, canonical(new.email), new.name, password_hash, new.role.value, new.key
            )
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "accounts_email":
            raise
        return await _signed_up_before(engine, passwords, new)
    return SignedUp(account_id)


async def _signed_up_before(engine: AsyncEngine, passwords: Passwords, new: NewAccount) -> SignedUp:
    async with snapshot(engine) as connection:
        row = await connection.fetchrow(FIND_SIGN_UP, canonical(new.email), new.key)
    if row is None:
        raise AddressInUse
    is_same = (row["name"], row["role"]) == (new.name, new.role.value)
    # A client that does not know the password gets no token.
    if not await passwords.verify(new.password, row["password_hash"], Asker(new.client_address)) or not is_same:
        raise IdempotencyKeyReused
    return SignedUp(row["id"], replayed=True)


# An attempt counts as a failure before its password is checked, so that concurrent attempts delay each other too.
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

UNCOUNT_ATTEMPT = """
with removed as (
    delete from sign_in_failures
    where email_hash = $1
    and failures = 1
)
update sign_in_failures
set failures = failures - 1
where email_hash = $1
and failures > 1
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


async def sign_in(engine: AsyncEngine, passwords: Passwords, delays: Delays, attempt: Attempt) -> tuple[Principal, str]:
    """The account, and its name. Raises WrongCredentials, after the same time for an unknown address."""
    email = canonical(attempt.email)
    email_hash = sha256(email.encode()).digest()
    async with snapshot(engine) as connection:
        attempts = await connection.fetchval(COUNT_ATTEMPT, email_hash, FORGET_FAILURES_MINUTES)
        account = await connection.fetchrow(FIND_ACCOUNT, email)
    await delays.wait(attempts - 1)
    asker = Asker(attempt.client_address, is_clean=attempts == 1)
    try:
        is_right = await passwords.verify(attempt.password, account["password_hash"] if account else None, asker)
    except Busy:
        # The password was not checked. Otherwise a customer who tries again would seem to guess.
        async with snapshot(engine) as connection:
            await connection.execute(UNCOUNT_ATTEMPT, email_hash)
        raise
    if not is_right or account is None:
        raise WrongCredentials
    async with snapshot(engine) as connection:
        await connection.execute(FORGET_FAILURES, email_hash)
    return Principal(account["id"], Role(account["role"])), account["name"]


# An array, because the planner overestimates the rows of a join and would scan the table.
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
    """Deletes up to `batch_max` counts that are older than FORGET_FAILURES_MINUTES; returns their number."""
    tag = await connection.execute(TRIM_FAILURES, FORGET_FAILURES_MINUTES, batch_max)
    return int(str(tag).removeprefix("DELETE "))


PROMOTE_ACCOUNT = """
update accounts
set role = 'MANAGER'
where lower(email) = lower($1)
"""


async def make_manager(engine: AsyncEngine, email: str) -> bool:
    """Gives the account the role MANAGER, from its next sign-in on; False where the account does not exist."""
    async with transaction(engine) as connection:
        tag: str = await connection.execute(PROMOTE_ACCOUNT, canonical(email))
    return tag != "UPDATE 0"
