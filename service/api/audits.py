"""The verdict of the self-audit, as managers read it."""

from collections.abc import Mapping
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field

from service.api import httperrors, refusals, shown
from service.api.context import AsManager, InContext
from service.api.fields import Reply
from service.audit import verdicts
from service.audit.verdicts import Found
from service.database import snapshot
from service.errors import Busy, DatabaseAway, Forbidden, TooManyRequests, Unauthenticated

router = APIRouter(prefix="/manager", tags=["manager"])

Check = Literal["owners", "money", "ownerless", "overdue", "log", "cache"]
RULES: dict[Check, str] = {
    "owners": "No seat is in two live reservations.",
    "money": "A sold seat is paid once, at its price, and nothing else is paid.",
    "ownerless": "A live reservation has all of its seats, and a seat that is not available has one.",
    "overdue": "Every unpaid hold ends within a minute of its deadline.",
    "log": "No event is missing. The last event of each reservation agrees with its current state and its seats."
    " Each of the newest reservations since the log began has an event.",
    "cache": "A seat map in Redis agrees with the ledger; a wrong one is deleted, and its next reader builds it again.",
}


class FaultReply(Reply):
    """The ids of a fault, as far as the check knows them."""

    seat_id: Annotated[int | None, Field(examples=[17])]
    reservation_id: Annotated[str | None, Field(examples=[shown.RESERVATION_ID])]
    session_id: Annotated[int | None, Field(examples=[1])]


class ViolationReply(Reply):
    """A broken rule; the examples are the first that were found."""

    check: Check
    rule: Annotated[str, Field(examples=[RULES["money"]])]
    count: Annotated[int, Field(examples=[1])]
    examples: list[FaultReply]


class AuditReply(Reply):
    """The last finished round, and the violations of the current one so far. `pending`: before the first."""

    status: Literal["clean", "violated", "pending"]
    began_at: shown.Moment | None
    finished_at: shown.Moment | None
    checked: Annotated[
        dict[str, int],
        Field(
            description="Rows that were checked. `holds`: those that were overdue",
            examples=[{"holds": 0, "seats": 16, "reservations": 3, "events": 6, "maps": 1}],
        ),
    ]
    not_looked_at: Annotated[
        dict[str, int],
        Field(
            description="Parts that the round could not check. `events`: 1 where the log could not be compared with "
            "the ledger, because reservations or new events were too many, or because the log was trimmed or replaced "
            "meanwhile; `maps`: maps that could not be read",
            examples=[{}],
        ),
    ]
    violations: list[ViolationReply]


@router.get(
    "/audit",
    summary="Read the verdict of the self-audit",
    responses=refusals.responses(
        Unauthenticated, Forbidden, httperrors.InvalidRequest, TooManyRequests, Busy, DatabaseAway
    ),
)
async def show_audit(context: InContext, _manager: AsManager) -> AuditReply:
    """The expirer checks all seats, reservations, events and maps, round after round. `finishedAt` is by PostgreSQL's
    clock; if it is old, no expirer runs.
    """
    async with snapshot(context.engine) as connection:
        verdict = await verdicts.read_verdict(connection)
    return AuditReply(
        status="violated" if verdict.violations else "clean" if verdict.finished_at else "pending",
        began_at=verdict.began_at,
        finished_at=verdict.finished_at,
        checked=verdict.checked,
        not_looked_at=verdict.unlooked,
        violations=_replies(verdict.violations),
    )


def _replies(violations: Mapping[str, Found]) -> list[ViolationReply]:
    return [
        ViolationReply(
            check=check,
            rule=rule,
            count=violations[check].count,
            examples=[
                FaultReply(seat_id=fault.seat_id, reservation_id=fault.reservation_id, session_id=fault.session_id)
                for fault in violations[check].examples
            ],
        )
        for check, rule in RULES.items()
        if check in violations
    ]
