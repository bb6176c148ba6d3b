"""The customers whose holds of a session end unpaid, as managers read them."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import Field

from service.api import httperrors, refusals, shown
from service.api.context import AsManager, InContext
from service.api.fields import ID_MAX, FromDigits, Reply
from service.database import snapshot
from service.errors import Busy, DatabaseAway, Forbidden, NotFound, TooManyRequests, Unauthenticated
from service.ledger.unpaid import top_unpaid

router = APIRouter(prefix="/manager", tags=["manager"])

CUSTOMER_ID = "01926e2c-5a00-7000-8000-00000000000c"


class UnpaidCustomer(Reply):
    """A customer's holds that expired or were released. `seatSeconds`: for how long they kept how many seats."""

    customer_id: Annotated[UUID, Field(examples=[CUSTOMER_ID])]
    holds: Annotated[int, Field(examples=[3])]
    seats: Annotated[int, Field(description="Seats of all these holds", examples=[30])]
    seat_seconds: Annotated[int, Field(examples=[900])]


class AbuseReply(Reply):
    """The customers with the most unpaid seat-seconds, the first one first, of the holds made from `since` on."""

    session_id: shown.SessionId
    since: shown.Moment
    customers: list[UnpaidCustomer]


@router.get(
    "/session/{sessionId}/abuse",
    summary="List the customers who keep seats without paying",
    responses=refusals.responses(
        Unauthenticated, Forbidden, NotFound, httperrors.InvalidRequest, TooManyRequests, Busy, DatabaseAway
    ),
)
async def list_abuse(
    session_id: Annotated[int, Path(alias="sessionId", ge=1, le=ID_MAX, examples=[1]), FromDigits],
    context: InContext,
    _manager: AsManager,
    minutes: Annotated[int, Query(ge=1, le=60, description="How far to look back"), FromDigits] = 10,
    limit: Annotated[int, Query(ge=1, le=100, description="Customers in the list"), FromDigits] = 20,
) -> AbuseReply:
    """Holds that ended unpaid. `since` is later than asked where the newest 20,000 reservations do not reach back so
    far.
    """
    async with snapshot(context.engine) as connection:
        found = await top_unpaid(connection, session_id, minutes, limit)
    customers = [
        UnpaidCustomer(
            customer_id=one.customer_id, holds=one.holds, seats=one.seats, seat_seconds=round(one.seat_seconds)
        )
        for one in found.customers
    ]
    return AbuseReply(session_id=session_id, since=found.since, customers=customers)
