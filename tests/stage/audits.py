"""What the tests of the self-audit share: whole rounds at once, and what each has found."""

from collections.abc import Mapping
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from expirer.loops.audit import Audit
from service.audit.verdicts import Found, Place, Progress, Tally, Verdict, read_standing
from service.cache import Cache
from service.database import Connection
from service.settings import Settings

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


async def do_round_by_turns(engine: AsyncEngine, sql: Connection, settings: Settings) -> Tally:
    """What a round finds that goes over to another replica after each of its slices."""
    await sql.execute(LET_A_ROUND_BE_DUE)
    for turn in range(1_000):
        audit = Audit(engine, settings, f"replica {turn}", None)
        await audit.step()
        assert audit._turn is not None
        begun_at = audit._turn.round.progress().place
        while audit._turn is not None and audit._turn.round.progress().place == begun_at:
            await audit.step()
        if audit._turn is None:
            return (await last_verdict(sql)).tally
        await audit.close()
    raise AssertionError("the round goes no further")


def progress(tally: Tally) -> Progress:
    """A round that has found so much, and has no pass left."""
    return Progress(tally, Place(None, "0", {"last": 0, "first_at": None, "open": ""}))


async def last_verdict(sql: Connection) -> Verdict:
    """The one that everybody is shown."""
    verdict = (await read_standing(sql)).verdict
    assert verdict is not None
    return verdict


def faulty(found: Mapping[str, Found]) -> dict[str, set[object]]:
    """The ids that each check names: reservations as UUIDs, seats as numbers; of a map its session's."""
    return {
        check: {
            UUID(value) if name == "reservation_id" else value
            for fault in checked.examples
            for name, value in fault.items()
            if value is not None and name != "check" and (name != "session_id" or check == "cache")
        }
        for check, checked in found.items()
    }
