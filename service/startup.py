"""Starts a session of PostgreSQL, and makes sure that each of its waits has a limit: also behind PgBouncer.

PostgreSQL takes the limits as start-up parameters. PgBouncer refuses or ignores them, and in transaction mode a `set`
would be lost or reach another client. So behind it they must be settings of the role, which this module checks.
"""

from collections.abc import Mapping

import asyncpg

from service.errors import NotReady
from service.observability.statements import Connection, TracedConnection
from service.settings import Settings

UNSUPPORTED = "unsupported startup parameter"
"""PgBouncer's words."""

READ_LIMITS = """
select
    quote_ident(current_user) as role,
    extract(epoch from current_setting('statement_timeout')::interval)::float8 as statement_timeout,
    extract(epoch from current_setting('lock_timeout')::interval)::float8 as lock_timeout,
    extract(epoch from current_setting('idle_in_transaction_session_timeout')::interval)::float8
        as idle_in_transaction_session_timeout
"""

KEEPALIVES = {
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "client_connection_check_interval": "2000",
}

PLANS = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "jit": "off"}
"""Each statement is planned once, by index. Planning it again would often take longer than the statement itself. And no
statement reads a whole table, nor does the search behind a foreign key: a plan is kept until the table's statistics
change, and one of the first minute, when the table was a page, would read all of it.
"""


async def start_session(settings: Settings, application_name: str, idle_in_transaction_seconds: int) -> Connection:
    """A session whose waits PostgreSQL limits. Raises NotReady, and errors of the driver."""
    limits_ms = {
        "statement_timeout": settings.statement_timeout_ms,
        "lock_timeout": settings.lock_timeout_ms,
        "idle_in_transaction_session_timeout": idle_in_transaction_seconds * 1_000,
    }
    named = {"application_name": application_name, "timezone": "UTC"}
    own = {"default_transaction_isolation": "read committed"} | {name: str(ms) for name, ms in limits_ms.items()}
    try:
        connection = await _connect(settings, named | own | KEEPALIVES | PLANS)
    except asyncpg.ProtocolViolationError as error:
        if UNSUPPORTED not in str(error):
            raise
        connection = await _connect(settings, named)
    try:
        await _refuse_without_limits(connection, limits_ms)
    except BaseException:
        connection.terminate()
        raise
    return connection


async def _connect(settings: Settings, parameters: Mapping[str, str]) -> Connection:
    return await asyncpg.connect(
        settings.database_url.get_secret_value(),
        connection_class=TracedConnection,
        timeout=settings.connect_timeout_ms / 1000,
        # Only for a network that drops packets: otherwise PostgreSQL's own timeout comes first.
        command_timeout=settings.statement_timeout_ms / 1000 + 1,
        server_settings=dict(parameters),
    )


async def _refuse_without_limits(connection: Connection, limits_ms: Mapping[str, int]) -> None:
    row = await connection.fetchrow(READ_LIMITS)
    assert row is not None
    missing = {name: ms for name, ms in limits_ms.items() if not 0 < row[name] * 1_000 <= ms}
    if missing:
        commands = "; ".join(f"alter role {row['role']} set {name} = '{ms}ms'" for name, ms in missing.items())
        raise NotReady(
            f"PgBouncer does not pass on the limits of a session. Set them for the role, then RECONNECT: {commands}"
        )
