"""Takes a session off sale, and puts it back: new holds are refused, and live holds and purchases stay as they are."""

from datetime import datetime

from service.database import Connection
from service.errors import NotFound

# A hold reads it in the statement after its last lock, so it does not wait for this row.
PAUSE_SESSION = """
update sessions
set paused_at = coalesce(paused_at, clock_timestamp())
where id = $1
returning paused_at
"""

RESUME_SESSION = """
update sessions
set paused_at = null
where id = $1
returning paused_at
"""


async def pause(connection: Connection, session_id: int) -> datetime:
    """Since when the session is paused, also where it was paused before. Raises NotFound."""
    paused_at = await _changed(connection, PAUSE_SESSION, session_id)
    assert paused_at
    return paused_at


async def resume(connection: Connection, session_id: int) -> None:
    """Puts the session on sale again. Raises NotFound."""
    await _changed(connection, RESUME_SESSION, session_id)


async def _changed(connection: Connection, statement: str, session_id: int) -> datetime | None:
    row = await connection.fetchrow(statement, session_id)
    if row is None:
        raise NotFound("session")
    paused_at: datetime | None = row["paused_at"]
    return paused_at
