"""The field types that replies share, each with its example in the OpenAPI document."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

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
