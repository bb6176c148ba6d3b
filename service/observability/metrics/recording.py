"""Turns the operations of the API and the loops into metrics."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import asyncpg
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from service import errors
from service.observability.metrics import catalogue
from service.reservation import Reservation

REASONS: dict[type[Exception], str] = {
    errors.SeatsTaken: "taken",
    errors.SeatLimitReached: "limit",
    errors.HoldCooldown: "cooldown",
    errors.HoldExpired: "expired",
    errors.SaleClosed: "closed",
    errors.SalesPaused: "paused",
    errors.NotFound: "not_found",
    errors.SeatsUnknown: "not_found",
    errors.SeatsOfSeveralSessions: "several_sessions",
    errors.IdempotencyKeyReused: "key_reused",
    errors.ReservationPaid: "paid",
    errors.ReservationCancelled: "cancelled",
    errors.Unauthenticated: "no_account",
    errors.SessionBusy: "busy",
    errors.DatabaseAway: "away",
    errors.OutcomeUnknown: "unknown",
}
DATABASE_ERRORS: dict[type[Exception], str] = {
    PoolTimeoutError: "pool_timeout",
    asyncpg.LockNotAvailableError: "lock_timeout",
    asyncpg.QueryCanceledError: "statement_timeout",
    asyncpg.DeadlockDetectedError: "deadlock",
    asyncpg.SerializationError: "serialization",
    asyncpg.InvalidCachedStatementError: "schema",
    errors.OutcomeUnknown: "commit_unknown",
}
"""Every other error that is translated means that PostgreSQL is down."""
OUR_FAULTS = ("unavailable", "failed")
"""Outcomes of requests that count against the error budget."""
CONFLICT, TOO_MANY, UNAVAILABLE = 409, 429, 503


@dataclass(slots=True)
class Operation:
    """An operation in progress. The caller fills in the facts of its answer. `total` is in minor units."""

    changed: bool = False
    seats: int = 0
    total: int = 0
    currency: str = ""


@contextmanager
def operation(name: str) -> Iterator[Operation]:
    """Counts and times the block as `hold`, `pay` or `release`. The exception that it raises gives the outcome."""
    running = Operation()
    began = time.perf_counter()
    try:
        yield running
    except Exception as error:
        catalogue.OPERATION_SECONDS.of(name, _outcome(error)).observe(time.perf_counter() - began)
        if isinstance(error, errors.RowlockError):
            catalogue.REFUSALS.of(name, _reason(error)).inc()
        raise
    catalogue.OPERATION_SECONDS.of(name, "done" if running.changed else "repeated").observe(time.perf_counter() - began)
    if running.changed:
        catalogue.SEATS.of(name).inc(running.seats)
        if name == "pay":
            catalogue.PAID.of(running.currency).inc(running.total)


@dataclass(slots=True)
class Expiry:
    """A batch of the inbox or the sweep: the holds that it ended, and the number that it skipped."""

    reservations: Sequence[Reservation] = ()
    skipped: int = 0


@contextmanager
def expiry(by: str) -> Iterator[Expiry]:
    """Counts and times a batch that fails or is not empty. The block fills in the committed holds."""
    batch = Expiry()
    began = time.perf_counter()
    try:
        yield batch
    except Exception as error:
        catalogue.OPERATION_SECONDS.of("expire", _outcome(error)).observe(time.perf_counter() - began)
        raise
    catalogue.ROWS_SKIPPED.of(by).inc(batch.skipped)
    if batch.reservations:
        seconds = time.perf_counter() - began
        catalogue.OPERATION_SECONDS.of("expire", "done").observe(seconds)
        batch_done(by, len(batch.reservations), seconds)
        holds_ended(by, batch.reservations)


def requests_expected(routed: Iterable[tuple[str, str]]) -> None:
    """Starts the failures of these methods and routes at 0: a series that starts at 1 never shows its first failure."""
    for method, route in routed:
        for outcome in OUR_FAULTS:
            catalogue.HTTP_SECONDS.of(method, route, outcome)


def request_answered(method: str, route: str | None, status: int, seconds: float) -> None:
    """`route` is the template, None for an unknown path. `status` is 0 if no answer could be sent."""
    catalogue.HTTP_SECONDS.of(method, route or "other", _answer(status)).observe(seconds)


def hold_refused_unread(route: str, error: errors.RowlockError) -> None:
    """A hold was refused before its parsing, in no time."""
    request_answered("POST", route, UNAVAILABLE, 0)
    catalogue.OPERATION_SECONDS.of("hold", _outcome(error)).observe(0)
    catalogue.REFUSALS.of("hold", _reason(error)).inc()


def map_given(source: str, age_ms: int) -> None:
    """A seat map was served."""
    catalogue.MAP_READS.of(source).inc()
    catalogue.MAP_AGE_SECONDS.of(source).observe(age_ms / 1000)


def retried(reason: str) -> None:
    """A transaction is retried."""
    catalogue.RETRIES.of(reason).inc()


def database_failed(error: Exception) -> None:
    """An error of the driver or the pool, before its translation."""
    kind = next((kind for type_, kind in DATABASE_ERRORS.items() if isinstance(error, type_)), "away")
    catalogue.DATABASE_ERRORS.of(kind).inc()


def holds_ended(by: str, ended: Iterable[Reservation]) -> None:
    """Holds have expired: by the inbox, the sweep, or a buyer."""
    counted, lateness = catalogue.HOLDS_EXPIRED.of(by), catalogue.LATENESS_SECONDS.of(by)
    for reservation in ended:
        assert reservation.settled_at is not None
        counted.inc()
        lateness.observe((reservation.settled_at - reservation.expires_at).total_seconds())


def batch_done(loop: str, items: int, seconds: float) -> None:
    """One batch of a loop. An empty one does not count."""
    if items:
        catalogue.BATCH_ITEMS.of(loop).observe(items)
        catalogue.BATCH_SECONDS.of(loop).observe(seconds)


def list_written(kind: str, members: int, seconds: float) -> None:
    """Requests have shared a transaction."""
    catalogue.LIST_MEMBERS.of(kind).observe(members)
    catalogue.LIST_SECONDS.of(kind).observe(seconds)


def _outcome(error: Exception) -> str:
    match error:
        case errors.OutcomeUnknown():
            return "unknown"
        case errors.Unavailable():
            return "unavailable"
        case errors.RowlockError():
            return "refused"
        case _:
            return "failed"


def _reason(error: errors.RowlockError) -> str:
    if isinstance(error, errors.Busy):
        return "locked" if error.reason is errors.BusyReason.ROW_LOCK else "busy"
    return REASONS.get(type(error), "other")


def _answer(status: int) -> str:
    match status:
        case _ if status < 100:  # noqa: PLR2004 - none was sent
            return "failed"
        case _ if status < 400:  # noqa: PLR2004 - refusals from here on
            return "ok"
        case 409:
            return "conflict"
        case 429:
            return "limited"
        case 503:
            return "unavailable"
        case _:
            return "refused" if status < 500 else "failed"  # noqa: PLR2004 - the service's fault from here on
