"""What the tests of the self-audit share: whole rounds at once, and what each has found."""

from collections.abc import Mapping
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from expirer.audit import Audit
from service.cache import Cache
from service.database import Connection
from service.settings import Settings
from service.verdicts import Found, Verdict, read_standing

LET_A_ROUND_BE_DUE = """
update audits
set finished_at = finished_at - interval '1 day'
"""


async def do_round(
    engine: AsyncEngine, sql: Connection, settings: Settings, cache: Cache | None = None, owner: str = "test"
) -> Mapping[str, Found]:
    """What a round finds that begins now, by check."""
    await sql.execute(LET_A_ROUND_BE_DUE)
    audit = Audit(engine, settings, owner, cache)
    await audit.step()
    while audit._turn is not None:
        await audit.step()
    return (await last_verdict(sql)).tally.violations


async def last_verdict(sql: Connection) -> Verdict:
    """The one that everybody is shown."""
    verdict = (await read_standing(sql)).verdict
    assert verdict is not None
    return verdict


def faulty(found: Mapping[str, Found]) -> dict[str, set[object]]:
    """The ids that each check names: reservations as UUIDs, seats and sessions as numbers."""
    return {
        check: {
            UUID(value) if name == "reservation_id" else value
            for fault in checked.examples
            for name, value in fault.items()
            if name != "check" and value is not None
        }
        for check, checked in found.items()
    }
