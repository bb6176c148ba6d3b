"""The pool of connections to PostgreSQL, transactions, and the translation of the driver's errors.

SQLAlchemy keeps the pool; statements run on its asyncpg connections. A `Connection` here is asyncpg's.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, MutableMapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import asyncpg
from sqlalchemy import Engine, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from service.errors import Busy, BusyReason, DatabaseAway, NotReady, OutcomeUnknown
from service.migrations import NEWEST
from service.observability.metrics import catalogue, recording
from service.settings import Settings
from service.startup import start_session

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

IDLE_IN_TRANSACTION_SECONDS = 5
"""PostgreSQL ends a transaction that is idle for this long, and releases its locks."""
POOL_RECYCLE_SECONDS = 1_800

AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.InsufficientResourcesError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)
"""The connection is lost or useless, or the server has no disk, memory or connection left. The last four mean a
failover, or a changed password or database.
"""

FORGOTTEN = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)
"""A prepared statement of another session: PgBouncer gives each transaction one, and does not prepare it there."""

WAITED_TOO_LONG = (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError)
COLLIDED = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
PREPARED_BEFORE = (asyncpg.InvalidCachedStatementError,)
"""A statement that was prepared before a column of its result got another type. The driver repeats it only outside of
transactions.
"""
BUSY: Sequence[tuple[type[Exception] | tuple[type[Exception], ...], BusyReason]] = (
    (PoolTimeoutError, BusyReason.CONNECTION),
    (COLLIDED, BusyReason.COLLISION),
    (PREPARED_BEFORE, BusyReason.SCHEMA),
    (asyncpg.LockNotAvailableError, BusyReason.ROW_LOCK),
    (asyncpg.QueryCanceledError, BusyReason.STATEMENT),
)


def create_engine(
    settings: Settings, application_name: str, idle_in_transaction_seconds: int = IDLE_IN_TRANSACTION_SECONDS
) -> AsyncEngine:
    """A pool that connects on first use, and only to a schema that is new enough."""
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=partial(connect, settings, application_name, idle_in_transaction_seconds),
        pool_size=settings.pool_size,
        max_overflow=0,
        pool_timeout=settings.pool_wait_ms / 1000,
        pool_recycle=POOL_RECYCLE_SECONDS,
        pool_use_lifo=True,
    )
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    return engine


async def connect(
    settings: Settings, application_name: str, idle_in_transaction_seconds: int = IDLE_IN_TRANSACTION_SECONDS
) -> Connection:
    """A connection outside the pool. PostgreSQL limits each of its waits, so that a lost client's locks are released.

    Raises DatabaseAway, NotReady.
    """
    # SQLAlchemy wraps the errors of asyncpg here, but not our own.
    with _translated():
        connection = await start_session(settings, application_name, idle_in_transaction_seconds)
        try:
            await _refuse_older_schema(connection)
        except BaseException:
            connection.terminate()
            raise
    return connection


def _refuse_closed(connection: Any, _record: Any, _proxy: Any) -> None:
    """Makes the pool reconnect where PostgreSQL has closed the connection. It costs no round trip."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


_in_transaction: ContextVar[bool] = ContextVar("in_transaction", default=False)


def refuse_in_transaction(what: str) -> None:
    """Raises RuntimeError inside `transaction`: its locks must not be held during a call to another store."""
    if _in_transaction.get():
        raise RuntimeError(f"{what} was called while a transaction is open")


@asynccontextmanager
async def transaction(engine: AsyncEngine, lock_timeout_ms: int | None = None) -> AsyncIterator[Connection]:
    """A transaction that commits at the end, unless it raises or the caller has rolled it back.

    `lock_timeout_ms` replaces the connection's own limit.
    Raises Busy, DatabaseAway, or OutcomeUnknown when the COMMIT was sent and its answer did not come.
    """
    async with _connection(engine) as connection:
        # One round trip for both.
        await connection.execute("begin" + (f"; set local lock_timeout = {lock_timeout_ms}" if lock_timeout_ms else ""))
        token = _in_transaction.set(True)
        try:
            yield connection
        except BaseException as error:
            if not _is_lost(error):
                await connection.execute("rollback")
            raise
        finally:
            _in_transaction.reset(token)
        if connection.is_in_transaction():
            await _commit(connection)


@asynccontextmanager
async def snapshot(engine: AsyncEngine) -> AsyncIterator[Connection]:
    """A connection whose statements are transactions of their own: each sees the data committed when it begins.

    Raises as `transaction`, but never OutcomeUnknown: a write through it must be one that may be repeated.
    """
    async with _connection(engine) as connection:
        yield connection


async def roll_back(connection: Connection) -> None:
    """Ends a transaction that has changed nothing: unlike a COMMIT it does not wait for the disk."""
    await connection.execute("rollback")


# A COMMIT without a record of its own in the WAL waits neither for the disk nor for a synchronous standby.
EMIT_RECORD = """
select pg_logical_emit_message(true, 'rowlock', '')
"""


async def make_durable(connection: Connection) -> None:
    """Makes the COMMIT wait until the changes that this transaction has read are on the disk and on the standby.

    A transaction that was cut off while it waited for a synchronous standby is visible, and may be lost in a failover:
    https://www.postgresql.org/docs/current/warm-standby.html#SYNCHRONOUS-REPLICATION
    """
    await connection.execute(EMIT_RECORD)


async def _commit(connection: Connection) -> None:
    try:
        with catalogue.COMMIT_SECONDS.of().time():
            tag = await connection.execute("commit")
    except COLLIDED:
        raise
    except (*AWAY, *WAITED_TOO_LONG) as error:
        recording.database_failed(unknown := OutcomeUnknown())
        raise unknown from error
    if tag != "COMMIT":
        raise RuntimeError(f"COMMIT was answered with {tag}")


@asynccontextmanager
async def _connection(engine: AsyncEngine) -> AsyncIterator[Connection]:
    """A connection of the pool, which gets it back clean or not at all."""
    with _translated():
        async with AsyncExitStack() as stack:
            with catalogue.POOL_WAIT_SECONDS.of().time():
                pooled = await stack.enter_async_context(engine.connect())
            raw = await pooled.get_raw_connection()
            connection = raw.driver_connection
            assert connection is not None
            await _forget_old_statements(engine, connection, raw.info)
            try:
                yield connection
            except BaseException as error:
                if isinstance(error, PREPARED_BEFORE):
                    _schema_changes[engine.sync_engine] = _schema_changes.get(engine.sync_engine, 0) + 1
                # An answer may still be in transit: the next statement must not read it as its own.
                if _is_lost(error):
                    connection.terminate()
                raise


_schema_changes: WeakKeyDictionary[Engine, int] = WeakKeyDictionary()
"""How many were noticed by a connection of the pool."""


async def _forget_old_statements(engine: AsyncEngine, connection: Connection, info: MutableMapping[Any, Any]) -> None:
    """A change of the schema that one connection has noticed concerns all others: without this a second try on another
    one would fail too.
    """
    changes = _schema_changes.get(engine.sync_engine, 0)
    if info.setdefault("schema_changes", changes) != changes:
        await connection.reload_schema_state()
        info["schema_changes"] = changes


def _is_lost(error: BaseException) -> bool:
    """Whether the error leaves the connection useless, or with an unread answer in transit."""
    return isinstance(error, (*AWAY, OutcomeUnknown, asyncio.CancelledError))


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except FORGOTTEN as error:
        raise NotReady(
            "PgBouncer keeps no prepared statements in transaction mode: set its max_prepared_statements to 200, which"
            " needs PgBouncer 1.21, or its pool_mode to session"
        ) from error
    except (PoolTimeoutError, *WAITED_TOO_LONG, *COLLIDED, *PREPARED_BEFORE, *AWAY) as error:
        recording.database_failed(error)
        for kinds, reason in BUSY:
            if isinstance(error, kinds):
                raise Busy(reason) from error
        raise DatabaseAway from error


SCHEMA_NUMBER = """
select max(version_num)
from alembic_version
"""


async def _refuse_older_schema(connection: Connection) -> None:
    """Raises NotReady where the schema is older than this code."""
    try:
        number = await connection.fetchval(SCHEMA_NUMBER)
    except asyncpg.UndefinedTableError:
        number = None
    if number is None or number < NEWEST:
        raise NotReady(
            f"the database's schema is {number or 'empty'}, this release needs {NEWEST}: run python -m service.migrate"
        )


PING = """
select 1
"""


async def ping(engine: AsyncEngine) -> None:
    """Returns if PostgreSQL answers and its schema is new enough. Raises NotReady, Busy, DatabaseAway."""
    async with snapshot(engine) as connection:
        await connection.fetchval(PING)


async def lock_rows(connection: Connection, what: str, statement: str, *arguments: Any) -> list[asyncpg.Record]:
    """The rows that the statement locks. `what` is their label in metrics: customers, reservations or seats."""
    with catalogue.LOCK_SECONDS.of(what).time():
        return await connection.fetch(statement, *arguments)


def columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    """Rows as one array for each column, as `unnest` takes them; at least one row."""
    return [list(column) for column in zip(*rows, strict=True)]


def expect_rows(what: str, counted: int, expected: int) -> None:
    """Raises RuntimeError, which ends the transaction, where a write changed more or fewer rows than expected."""
    if counted != expected:
        raise RuntimeError(f"{what}: {counted} rows instead of {expected}")
