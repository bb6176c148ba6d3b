"""REF: the obvious version of the hold, as a good tutorial would write it: FastAPI, SQLAlchemy's ORM, `FOR UPDATE`.

It is complete but plain: token, key, limit, clock and event as in the service, one transaction and one COMMIT a hold.
It uses the service's tables.
"""

import hashlib
import os
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import jwt
from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel
from sqlalchemy import BigInteger, Identity, func, select
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from uuid_utils.compat import uuid7

from load.bench.ground import HOLD_SECONDS

SEATS_PER_CUSTOMER_MAX = 10
POOL_SIZE = 20


class Base(DeclarativeBase):
    """The columns' types."""

    type_annotation_map = {  # noqa: RUF012 - as SQLAlchemy declares it
        int: BigInteger,
        datetime: TIMESTAMP(timezone=True),
        list[int]: ARRAY(BigInteger),
        list[dict[str, Any]]: JSONB,
    }


class Account(Base):
    """A customer."""

    __tablename__ = "accounts"
    id: Mapped[UUID] = mapped_column(primary_key=True)


class Session(Base):
    """A showing."""

    __tablename__ = "sessions"
    id: Mapped[int] = mapped_column(primary_key=True)
    showtime: Mapped[datetime]
    currency: Mapped[str]


class Seat(Base):
    """A seat of a session."""

    __tablename__ = "seats"
    id: Mapped[int] = mapped_column(primary_key=True)
    session_id: Mapped[int]
    position: Mapped[int]
    placement: Mapped[str]
    price: Mapped[int]
    state: Mapped[str]
    reservation_id: Mapped[UUID | None]
    version: Mapped[int]


class Reservation(Base):
    """A hold."""

    __tablename__ = "reservations"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    customer_id: Mapped[UUID]
    session_id: Mapped[int]
    seat_ids: Mapped[list[int]]
    state: Mapped[str]
    total: Mapped[int]
    currency: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    idempotency_key: Mapped[str | None]
    request_fingerprint: Mapped[bytes]
    reply: Mapped[str]


class Event(Base):
    """A row of the log."""

    __tablename__ = "events"
    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    kind: Mapped[str]
    session_id: Mapped[int]
    reservation_id: Mapped[UUID]
    seats: Mapped[list[dict[str, Any]]]
    at: Mapped[datetime]


class HeldSeat(BaseModel):
    """A seat in the reply."""

    id: int
    placement: str
    price: int


class Reply(BaseModel):
    """The reply to a hold."""

    reservation_id: UUID
    session_id: int
    state: str
    seats: list[HeldSeat]
    total: int
    currency: str
    expires_at: datetime
    server_time: datetime


engine = create_async_engine(
    os.environ.get("ROWLOCK_DATABASE_URL", "postgresql://").replace("postgresql://", "postgresql+asyncpg://"),
    pool_size=POOL_SIZE,
)
make_session = async_sessionmaker(engine, expire_on_commit=False)
bearer = HTTPBearer()


async def open_session() -> AsyncIterator[AsyncSession]:
    """The session of a request."""
    async with make_session() as session:
        yield session


async def customer_id(credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> UUID:
    """The customer of the token."""
    try:
        claims = jwt.decode(
            credentials.credentials,
            os.environ["ROWLOCK_TOKEN_SECRET"],
            algorithms=["HS256"],
            audience="rowlock",
            issuer="rowlock",
        )
    except jwt.InvalidTokenError:
        raise HTTPException(401) from None
    return UUID(claims["sub"])


app = FastAPI()


@app.get("/readyz")
async def ready() -> None:
    """Answers when the process is ready."""


@app.post("/customer/book/{seat_id}", status_code=201)
async def book(
    seat_id: int,
    customer: Annotated[UUID, Depends(customer_id)],
    db: Annotated[AsyncSession, Depends(open_session)],
    idempotency_key: Annotated[str | None, Header()] = None,
) -> Reply:
    """Holds a seat."""
    fingerprint = hashlib.sha256(b"hold %d" % seat_id).digest()
    if await db.scalar(select(Account).where(Account.id == customer).with_for_update(key_share=True)) is None:
        raise HTTPException(401)
    repeated = select(Reservation).where(
        Reservation.customer_id == customer, Reservation.idempotency_key == idempotency_key
    )
    if known := await db.scalar(repeated):
        if known.request_fingerprint != fingerprint:
            raise HTTPException(422)
        return Reply.model_validate_json(known.reply)
    seat = await db.scalar(select(Seat).where(Seat.id == seat_id).with_for_update())
    if seat is None:
        raise HTTPException(404)
    show = await db.get_one(Session, seat.session_id)
    now = (await db.execute(select(func.clock_timestamp()))).scalar_one()
    if seat.state != "AVAILABLE" or show.showtime <= now:
        raise HTTPException(409)
    if await _seats_claimed(db, customer, seat) >= SEATS_PER_CUSTOMER_MAX:
        raise HTTPException(409)
    reply = _reply(seat, show, now)
    made = Reservation(
        id=reply.reservation_id, customer_id=customer, session_id=seat.session_id, seat_ids=[seat.id], state="HELD",
        total=seat.price, currency=show.currency, created_at=now, expires_at=reply.expires_at,
        idempotency_key=idempotency_key, request_fingerprint=fingerprint, reply=reply.model_dump_json(),
    )  # fmt: skip
    db.add(made)
    await db.flush()
    seat.state, seat.reservation_id, seat.version = "HELD", made.id, seat.version + 1
    change = {"seatId": seat.id, "position": seat.position, "state": "HELD", "version": seat.version}
    db.add(Event(kind="reservation.held", session_id=seat.session_id, reservation_id=made.id, seats=[change], at=now))
    await db.commit()
    return reply


async def _seats_claimed(db: AsyncSession, customer: UUID, seat: Seat) -> int:
    claimed = select(func.coalesce(func.sum(func.cardinality(Reservation.seat_ids)), 0)).where(
        Reservation.customer_id == customer,
        Reservation.session_id == seat.session_id,
        Reservation.state.in_(["HELD", "CONFIRMED"]),
    )
    return int((await db.execute(claimed)).scalar_one())


def _reply(seat: Seat, show: Session, now: datetime) -> Reply:
    return Reply(
        reservation_id=uuid7(),
        session_id=seat.session_id,
        state="HELD",
        seats=[HeldSeat(id=seat.id, placement=seat.placement, price=seat.price)],
        total=seat.price,
        currency=show.currency,
        expires_at=now + timedelta(seconds=HOLD_SECONDS),
        server_time=now,
    )
