"""Every reason to refuse a request, as one closed tree. The errors carry facts as data and know nothing of HTTP.

RowlockError
├── Refusal                     the request can't be granted; repeating it unchanged won't help
│   ├── Invalid                 a field breaks a rule
│   ├── Unauthenticated, WrongCredentials, Forbidden, NotFound
│   ├── SeatsUnknown, SeatsOfSeveralSessions, SeatsTaken, SaleClosed, SalesPaused, SeatLimitReached
│   ├── HoldCooldown, RoomOccupied
│   ├── HoldExpired, ReservationPaid, ReservationCancelled
│   └── IdempotencyKeyReused, AddressInUse
├── Unavailable                 the same request may succeed later
│   ├── Busy                    a lock, a connection or a place in a queue was not free in time
│   ├── DatabaseAway            PostgreSQL can't be reached, or was lost before the COMMIT was sent
│   ├── BrokerAway, CacheAway   RabbitMQ or Redis does not answer in time; no customer sees it, and no request waits
│   └── OutcomeUnknown          the COMMIT was sent and its answer never came
├── TooManyRequests             the account or the address exceeded its rate limit
└── NotReady                    the process must not serve: wrong schema, bad settings
"""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from uuid import UUID


class RowlockError(Exception):
    """The root of the tree; never raised itself."""


class Refusal(RowlockError):
    """The request can't be granted. The writes return these as values, the edge raises them."""


@dataclass(eq=False)
class Invalid(Refusal):
    """A field breaks a rule; `field` is the name that the client used."""

    field: str
    message: str


class TokenFault(Enum):
    """Why a request has no account. The value is the answer's `detail`."""

    MISSING = "A token is missing. Sign in, and send `Authorization: Bearer` followed by the token."
    NO_BEARER = "The header `Authorization` must be `Bearer`, a space and the token."
    DAMAGED = "The token is damaged, or it is not from this service. Send it as sign-in returned it."
    EXPIRED = "The token has expired. Sign in again."
    NO_ACCOUNT = "The account of this token no longer exists."


@dataclass(eq=False)
class Unauthenticated(Refusal):
    """The token is missing or not valid."""

    fault: TokenFault


class WrongCredentials(Refusal):
    """The password does not match the address, or the address is unknown."""


@dataclass(eq=False)
class Forbidden(Refusal):
    """The account's role does not allow it; `role` is the one that would."""

    role: str


@dataclass(eq=False)
class NotFound(Refusal):
    """It does not exist, or it belongs to another customer."""

    what: str


@dataclass(eq=False)
class SeatsUnknown(Refusal):
    """Some of the seats do not exist."""

    seat_ids: tuple[int, ...]


class SeatsOfSeveralSessions(Refusal):
    """The seats belong to several sessions. A reservation is for seats of one session."""


@dataclass(eq=False)
class SeatsTaken(Refusal):
    """Other reservations hold or own these seats: every such seat of the request, not only the first.

    Those of `own_reservation_ids` are the customer's own.
    """

    seat_ids: tuple[int, ...]
    own_reservation_ids: tuple[UUID, ...] = ()


@dataclass(eq=False)
class SaleClosed(Refusal):
    """Selling ends at showtime."""

    showtime: datetime


@dataclass(eq=False)
class SalesPaused(Refusal):
    """A manager has taken the session off sale. Live holds may be paid."""

    session_id: int


@dataclass(eq=False)
class RoomOccupied(Refusal):
    """Another session, `session_id`, is in this room at an overlapping time. It begins at `showtime`."""

    session_id: int
    showtime: datetime


@dataclass(eq=False)
class SeatLimitReached(Refusal):
    """The customer would own more seats of the session than `seats_max`; `seats_claimed` are owned already."""

    seats_max: int
    seats_claimed: int


@dataclass(eq=False)
class HoldCooldown(Refusal):
    """Too many holds of the customer ended unpaid in this session: none is granted before `until`. With `seat_ids` this
    is so only for these seats, which the customer has just let go.
    """

    until: datetime
    retry_after_seconds: int
    seat_ids: tuple[int, ...] = ()


@dataclass(eq=False)
class HoldExpired(Refusal):
    """The deadline has passed, whether or not the seats have been released yet."""

    reservation_id: UUID
    expires_at: datetime


@dataclass(eq=False)
class ReservationPaid(Refusal):
    """A paid reservation can't be released."""

    reservation_id: UUID


@dataclass(eq=False)
class ReservationCancelled(Refusal):
    """A released reservation can't be paid."""

    reservation_id: UUID


class IdempotencyKeyReused(Refusal):
    """The customer has used this key for another request."""


class AddressInUse(Refusal):
    """An account with this e-mail address exists."""


class Unavailable(RowlockError):
    """Nothing is wrong with the request; the same one may succeed later."""


class BusyReason(Enum):
    """Why a request was refused as Busy. The value is the first sentence of the answer's `detail`."""

    ROW_LOCK = "Timed out waiting for a row lock"
    STATEMENT = "The database did not finish a statement in time"
    CONNECTION = "Timed out waiting for a database connection"
    COLLISION = "The transaction collided with another one"
    SCHEMA = "The database's schema was changed meanwhile"
    WRITE_QUEUE = "Too many holds, payments and releases are in progress"
    WRITE_TURN = "Timed out waiting for earlier holds, payments and releases"
    OVERDUE_HOLD = "An overdue hold of the seats was not released in time"
    HASH_QUEUE = "Too many password checks are waiting"
    HISTORY_READ = "Timed out waiting to search a history"
    MAP_READ = "Timed out waiting to read a seat map"
    MAP_ENCODE = "Timed out waiting to encode a seat map"
    MAP_COMPRESS = "Timed out waiting to compress a seat map"
    LARGE_ANSWERS = "Too many large answers are being sent"
    SHARED_WORK = "Too many reads are in progress"
    MAP_REPLACED = "The seat map was replaced while it was read"


@dataclass(eq=False)
class Busy(Unavailable):
    """The request needed something that was not free in time. Nothing was changed."""

    reason: BusyReason


@dataclass(eq=False)
class SessionBusy(Unavailable):
    """Too many holds of this session are in progress. Nothing was changed, and other sessions are not affected."""

    session_id: int


NOTHING_LOCKED = (BusyReason.COLLISION, BusyReason.SCHEMA)
"""A try at once may succeed, because the failed one has waited for nothing that is still there."""


def concerns_all(error: Exception) -> bool:
    """Whether PostgreSQL or the pool is unavailable, so that every other member of a list would fail too.

    A row lock that times out concerns one hold, and so does a collision; a change of the schema is over. A statement
    that times out may have waited for several locks.
    """
    if isinstance(error, Busy):
        return error.reason not in (BusyReason.ROW_LOCK, BusyReason.STATEMENT, *NOTHING_LOCKED)
    return isinstance(error, Unavailable)


class DatabaseAway(Unavailable):
    """PostgreSQL does not answer. Nothing was changed."""


class BrokerAway(Unavailable):
    """RabbitMQ does not answer in time. The sweep releases seats, and events wait in the log."""


class CacheAway(Unavailable):
    """Redis does not answer in time. PostgreSQL serves the seat maps, and each process counts its own rate limits."""


class OutcomeUnknown(Unavailable):
    """The COMMIT was sent and its answer never came. Repeating the request reveals whether the change was made."""


@dataclass(eq=False)
class TooManyRequests(RowlockError):
    """One account or address sent more than `requests_max` requests a minute of the kind `limit`."""

    limit: str
    requests_max: int
    retry_after_seconds: int


class NotReady(RowlockError):
    """The process must not serve. The message says which command to run or which setting to change."""
