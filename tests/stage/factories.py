"""Accounts, sessions and requests for tests. Accounts and sessions are written directly to the database."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from uuid_utils.compat import uuid7

from service.accounts.tokens import Principal, Role, Tokens
from service.database import Connection
from service.ledger.claims import HoldRequest
from service.ledger.settling import SettleRequest
from service.reservation import State
from service.sessions.creation import NewSession, create
from service.settings import Settings

TOKEN_SECRET = "a secret that only the tests know, of 32"
PRICE = 1250


def make_settings(database_url: str, **changes: Any) -> Settings:
    """The service's settings for a test: the defaults with short waits, high limits and open sign-up of managers."""
    values: dict[str, Any] = {
        "database_url": database_url,
        "token_secret": TOKEN_SECRET,
        "open_manager_sign_up": True,
        "sign_in_delay_ms_max": 0,
        # The same customers let one hold after another expire; tests of this rule set it themselves.
        "unpaid_ends_max": 0,
        "counts_seconds": 0.05,
        "map_read_interval_ms": 0,
        "account_requests_per_minute": 1_000_000,
        "account_payments_per_minute": 1_000_000,
        "address_requests_per_minute": 1_000_000,
        "address_sign_ins_per_minute": 1_000_000,
        "address_refusals_per_minute": 1_000_000,
        "metrics_port": 0,
        "expirer_metrics_port": 0,
        "log_level": "warning",
    }
    return Settings(**(values | changes))


@dataclass(frozen=True, slots=True)
class Account:
    """An account with a token."""

    id: UUID
    token: str

    @property
    def headers(self) -> dict[str, str]:
        """The headers of this account's requests."""
        return {"Authorization": f"Bearer {self.token}"}


async def make_accounts(connection: Connection, settings: Settings, count: int, role: Role) -> list[Account]:
    """Accounts with valid tokens but without passwords, whose hashes take 50 ms each."""
    tokens = Tokens(settings)
    ids = [uuid7() for _ in range(count)]
    rows = [(id_, f"{id_}@example.com", "Test account", "no hash", role.value) for id_ in ids]
    await connection.executemany(
        "insert into accounts (id, email, name, password_hash, role) values ($1, $2, $3, $4, $5)", rows
    )
    return [Account(id_, tokens.issue(Principal(id_, role))[0]) for id_ in ids]


async def make_customers(connection: Connection, settings: Settings, count: int) -> list[Account]:
    """Several customers."""
    return await make_accounts(connection, settings, count, Role.CUSTOMER)


async def make_customer(connection: Connection, settings: Settings) -> Account:
    """One customer."""
    return (await make_customers(connection, settings, 1))[0]


async def make_manager(connection: Connection, settings: Settings) -> Account:
    """One manager."""
    return (await make_accounts(connection, settings, 1, Role.MANAGER))[0]


@dataclass(frozen=True, slots=True)
class OnSale:
    """A session and its seats' ids, by position."""

    id: int
    seat_ids: Sequence[int]


async def make_session(
    connection: Connection, settings: Settings, seat_count: int = 16, showtime: datetime | None = None
) -> OnSale:
    """A session whose seats cost PRICE; by default it is in 30 days."""
    manager = await make_manager(connection, settings)
    new = NewSession(
        movie="Metropolis",
        room="Room 1",
        showtime=showtime or datetime.now(UTC) + timedelta(days=30),
        duration_minutes=153,
        price=PRICE,
        currency="EUR",
        placements=[f"A{number}" for number in range(1, seat_count + 1)],
    )
    async with connection.transaction():
        session, seats = await create(connection, new, manager.id)
    return OnSale(session.id, [seat.id for seat in seats])


def hold_of(customer: Account, *seat_ids: int, key: str | None = None) -> HoldRequest:
    """A request to hold seats, for the ledger."""
    return HoldRequest(uuid7(), customer.id, tuple(sorted(seat_ids)), key)


def settle_of(reservation_id: UUID, target: State, customer: Account | None = None) -> SettleRequest:
    """A request to end a hold, for the ledger; without a customer it is an internal one."""
    return SettleRequest(reservation_id, customer.id if customer else None, target)


async def make_overdue(connection: Connection, *reservation_ids: UUID) -> None:
    """Makes the holds overdue, as if they were a minute older."""
    await connection.execute(
        "update reservations set created_at = created_at - interval '1 minute',"
        " expires_at = expires_at - interval '1 minute' where id = any($1::uuid[])",
        reservation_ids,
    )


async def book(client: httpx.AsyncClient, customer: Account, *seat_ids: int, key: str | None = None) -> httpx.Response:
    """Holds the seats over HTTP."""
    headers = customer.headers | ({"Idempotency-Key": key} if key is not None else {})
    return await client.post("/customer/book", json={"seatIds": seat_ids}, headers=headers)


async def pay(client: httpx.AsyncClient, customer: Account, reservation_id: str) -> httpx.Response:
    """Pays for a reservation over HTTP."""
    return await client.put(f"/customer/pay/{reservation_id}", headers=customer.headers)


async def release(client: httpx.AsyncClient, customer: Account, reservation_id: str) -> httpx.Response:
    """Releases a reservation over HTTP."""
    return await client.delete(f"/customer/reservation/{reservation_id}", headers=customer.headers)
