"""What the tests of the self-audit share: whole rounds at once, and what each has found."""

from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from expirer.loops.audit import LOOK_SECONDS, Audit
from service.audit.rounds import Round
from service.audit.slices import Limits
from service.audit.verdicts import Tally
from service.cache import Cache
from service.seatmap.cached import SeatCache
from service.settings import Settings

LET_A_ROUND_BE_DUE = """
update audits
set finished_at = finished_at - interval '1 day'
"""


def begin_round(engine: AsyncEngine, settings: Settings, cache: Cache | None = None, **limits: Any) -> Round:
    """A whole round, whose holds are overdue at once."""
    maps = SeatCache(cache, settings.map_fresh_ms) if cache else None
    return Round.create(engine, maps, settings.log_keep_hours, Limits(**({"stuck_seconds": 0} | limits)))


async def do_round(engine: AsyncEngine, settings: Settings, cache: Cache | None = None, **limits: Any) -> Tally:
    """The result of a whole round."""
    round_ = begin_round(engine, settings, cache, **limits)
    while not await round_.advance():
        pass
    return round_.tally()


async def finish(audit: Audit) -> None:
    """Steps until the loop has nothing to do."""
    while await audit.step() != LOOK_SECONDS:
        pass


def faulty(tally: Tally) -> dict[str, set[object]]:
    """The ids that each check names: reservations as UUIDs, seats as numbers; of a map its session's."""
    return {
        check: {
            UUID(value) if name == "reservation_id" else value
            for fault in checked.examples
            for name, value in fault.items()
            if value is not None and name != "check" and (name != "session_id" or check == "cache")
        }
        for check, checked in tally.violations.items()
    }
