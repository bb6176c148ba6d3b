"""The field types that replies share, each with its example in the OpenAPI document."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import orjson
from pydantic import Field

from service.reservation import Reservation, Seat, State

RESERVATION_ID = "01926e2c-5a00-7000-8000-000000000001"

SessionId = Annotated[int, Field(examples=[1])]
SeatId = Annotated[int, Field(examples=[17])]
ReservationId = Annotated[UUID, Field(examples=[RESERVATION_ID])]
Movie = Annotated[str, Field(examples=["Metropolis"])]
Room = Annotated[str, Field(examples=["Room 1"])]
Placement = Annotated[str, Field(examples=["C1"])]
Duration = Annotated[int, Field(description="Minutes", examples=[153])]
Price = Annotated[int, Field(description="Price of one seat in minor units", examples=[1250])]
Total = Annotated[int, Field(description="Total price in minor units", examples=[1250])]
Currency = Annotated[str, Field(description="ISO 4217", examples=["EUR"])]
SeatCount = Annotated[int, Field(examples=[16])]
Showtime = Annotated[datetime, Field(description="RFC 3339 in UTC", examples=["2030-06-01T18:00:00Z"])]
Moment = Annotated[datetime, Field(description="RFC 3339 in UTC", examples=["2030-06-01T17:00:00Z"])]
Deadline = Annotated[datetime, Field(description="RFC 3339 in UTC", examples=["2030-06-01T17:00:30Z"])]

SEATS = [Seat(17, 0, "C1", 1250)]
HELD = Reservation(
    id=UUID(RESERVATION_ID),
    customer_id=UUID("01926e2c-5a00-7000-8000-000000000002"),
    session_id=1,
    seat_ids=(17,),
    state=State.HELD,
    total=1250,
    currency="EUR",
    created_at=datetime(2030, 6, 1, 17, tzinfo=UTC),
    expires_at=datetime(2030, 6, 1, 17, 0, 30, tzinfo=UTC),
    settled_at=None,
)
PAID = replace(HELD, state=State.CONFIRMED, settled_at=datetime(2030, 6, 1, 17, 0, 12, tzinfo=UTC))
RELEASED = replace(PAID, state=State.CANCELLED)
"""The reservations of the examples."""


def example(reply: bytes) -> dict[str, Any]:
    """The `content` of an answer in the document, with this example."""
    return {"application/json": {"example": orjson.loads(reply)}}
