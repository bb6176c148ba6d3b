"""Many holds at once, and their events with numbers: what the tests of the log and of its readers start from."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from expirer.loops import sequencer
from service.broker.messages import Hint
from service.database import Connection
from service.settings import Settings
from tests.stage.factories import hold_of, make_customer, make_session
from tests.stage.forcing import give_all


async def make_holds(sql: Connection, settings: Settings, count: int, hold_seconds: int = 30) -> list[UUID]:
    """Makes this many holds of one seat each, of one customer in a new session. Returns their ids in order."""
    customer = await make_customer(sql, settings)
    session = await make_session(sql, settings, max(16, count))
    return await give_all(sql, [hold_of(customer, seat) for seat in session.seat_ids[:count]], hold_seconds)


async def number_all(engine: AsyncEngine, settings: Settings) -> None:
    """Numbers the committed events, as the sequencer does."""
    while await sequencer.step(engine, settings, lambda: None) == 0:
        pass


async def make_numbered(engine: AsyncEngine, sql: Connection, settings: Settings, count: int) -> int:
    """Makes this many holds and numbers their events. Returns the last number."""
    await make_holds(sql, settings, count)
    await number_all(engine, settings)
    return int(await sql.fetchval("select max(number) from events"))


async def hints_of(sql: Connection, ids: Sequence[UUID]) -> list[Hint]:
    """The hints of these holds."""
    rows = await sql.fetch("select id, expires_at from reservations where id = any($1::uuid[])", ids)
    expires_at = {row["id"]: row["expires_at"] for row in rows}
    return [Hint(id_, expires_at[id_]) for id_ in ids]


async def count_states(sql: Connection) -> dict[str, int]:
    """The number of reservations by state."""
    rows = await sql.fetch("select state, count(*) as count from reservations group by state")
    return {row["state"]: row["count"] for row in rows}
