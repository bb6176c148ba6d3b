"""What managers see of the self-audit: whether anything was ever sold twice, and since when nobody has found so."""

from collections.abc import Mapping
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field

from service.api import refusals, shown
from service.api.context import AsManager, InContext
from service.api.fields import Reply
from service.audit import verdicts
from service.audit.verdicts import Found
from service.database import snapshot
from service.errors import Busy, DatabaseAway, Forbidden, TooManyRequests, Unauthenticated

router = APIRouter(prefix="/manager", tags=["manager"])

Check = Literal["owners", "money", "ownerless", "overdue", "log", "cache"]
RULES: dict[Check, str] = {
    "owners": "A seat is in no two live reservations.",
    "money": "A sold seat is paid once, at its price, and nothing else is paid.",
    "ownerless": "A live reservation has all of its seats, and a seat that is not available has one.",
    "overdue": "A hold that nobody has paid for has ended a minute after its deadline.",
    "log": "What the log tells, as far back as it is kept, is so; nothing is gone from it; it has each open hold and"
    " each of the newest reservations since it begins.",
    "cache": "A seat map in Redis is the ledger's; one that is not is built anew.",
}


class FaultReply(Reply):
    """What is at fault, as far as the check can tell."""

    seat_id: Annotated[int | None, Field(examples=[17])]
    reservation_id: Annotated[str | None, Field(examples=[shown.RESERVATION_ID])]
    session_id: Annotated[int | None, Field(examples=[1])]


class ViolationReply(Reply):
    """A rule that something breaks; the examples are the first that were found."""

    check: Check
    rule: Annotated[str, Field(examples=[RULES["money"]])]
    count: Annotated[int, Field(examples=[1])]
    examples: list[FaultReply]


class AuditReply(Reply):
    """The last finished round, and what the one that is under way has found already; `pending` before the first one."""

    status: Literal["clean", "violated", "pending"]
    began_at: shown.Moment | None
    finished_at: shown.Moment | None
    checked: Annotated[
        dict[str, int],
        Field(
            description="Rows that were looked at. `holds`: those that were overdue; `events`: with the open holds "
            "that were compared with them",
            examples=[{"holds": 0, "seats": 16, "reservations": 3, "events": 6, "maps": 1}],
        ),
    ]
    not_looked_at: Annotated[
        dict[str, int],
        Field(
            description="What the round knows nothing of: what could not be compared with the log (`events`), because "
            "open holds, new events or events without a number were too many, or because the log was not the same any "
            "more; and maps that could not be read (`maps`)",
            examples=[{}],
        ),
    ]
    violations: list[ViolationReply]


@router.get(
    "/audit",
    summary="What the last self-audit has found",
    responses=refusals.responses(Unauthenticated, Forbidden, TooManyRequests, Busy, DatabaseAway),
)
async def audit(context: InContext, _manager: AsManager) -> AuditReply:
    """The expirer looks at every seat, reservation, event and map, again and again; `finishedAt` is by PostgreSQL's
    clock, and a round that is not followed by another one for long says that no expirer runs. What breaks a rule that
    only a newer release knows is `violated`, and not in the list.
    """
    async with snapshot(context.engine) as connection:
        standing = await verdicts.read_standing(connection)
    verdict, violations = standing.verdict, standing.violations()
    return AuditReply(
        status="violated" if violations else "clean" if verdict else "pending",
        began_at=verdict.began_at if verdict else None,
        finished_at=verdict.finished_at if verdict else None,
        checked=dict(verdict.tally.checked) if verdict else {},
        not_looked_at=dict(verdict.tally.unlooked) if verdict else {},
        violations=_replies(violations),
    )


def _replies(violations: Mapping[str, Found]) -> list[ViolationReply]:
    return [
        ViolationReply(
            check=check,
            rule=rule,
            count=violations[check].count,
            examples=[
                FaultReply(
                    seat_id=fault["seat_id"], reservation_id=fault["reservation_id"], session_id=fault["session_id"]
                )
                for fault in violations[check].examples
            ],
        )
        for check, rule in RULES.items()
        if check in violations
    ]
