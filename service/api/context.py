"""What every route may use: the process's singletons, who asks, and the headers that replies share."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, cast

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.ext.asyncio import AsyncEngine

from service.accounts.delays import Delays
from service.accounts.passwords import Passwords
from service.accounts.tokens import Principal, Role, Tokens
from service.admission.ratelimit import Limit, RateLimits
from service.api.mapbody import MapBodies
from service.errors import Forbidden, Unauthenticated
from service.ledger.booking import BoxOffice
from service.moments import rfc3339
from service.seatmap.maps import SeatMaps
from service.sessions.listing import SessionList
from service.settings import Settings

TIME_HEADER = "Rowlock-Time"
"""PostgreSQL's present time in a reply, which a countdown to `expiresAt` starts from."""


@dataclass(frozen=True, slots=True)
class Context:
    """One per process, made by the lifespan of `service.app`."""

    settings: Settings
    engine: AsyncEngine
    box_office: BoxOffice
    sessions: SessionList
    seat_maps: SeatMaps
    map_bodies: MapBodies
    tokens: Tokens
    passwords: Passwords
    delays: Delays
    limits: RateLimits


async def get_context(request: Request) -> Context:
    """The process's context, from the lifespan state."""
    return cast("Context", request.state.context)


# All of them are coroutines: FastAPI runs plain functions in threads, for which nothing here is made.
InContext = Annotated[Context, Depends(get_context)]

bearer = HTTPBearer(auto_error=False, description="The token from `POST /sign-up` or `POST /sign-in`")


Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]


async def get_principal(context: InContext, credentials: Credentials) -> Principal:
    """Who asks. Raises Unauthenticated, TooManyRequests."""
    if credentials is None:
        raise Unauthenticated
    principal = context.tokens.check(credentials.credentials)
    await context.limits.check(context.limits.account, str(principal.account_id))
    return principal


async def limit_read(request: Request, context: InContext) -> None:
    """Counts a read that anybody may do for the account that asks, or else for the address. Raises TooManyRequests."""
    # The token is not declared, or the document would demand it of everybody.
    try:
        await get_principal(context, await bearer(request))
    except Unauthenticated:
        await _limit_address(request, context, context.limits.address)


async def limit_sign_in(request: Request, context: InContext) -> None:
    """Counts a sign-up or a sign-in for the address. Raises TooManyRequests."""
    await _limit_address(request, context, context.limits.sign_in)


async def _limit_address(request: Request, context: Context, limit: Limit) -> None:
    forwarded_for = ",".join(request.headers.getlist("x-forwarded-for"))
    peer = request.client.host if request.client else None
    await context.limits.check(limit, context.limits.client_address(peer, forwarded_for))


async def get_customer(principal: Annotated[Principal, Depends(get_principal)]) -> Principal:
    """Who asks, as a customer. Raises Unauthenticated, Forbidden."""
    if principal.role is not Role.CUSTOMER:
        raise Forbidden(Role.CUSTOMER)
    return principal


async def get_manager(principal: Annotated[Principal, Depends(get_principal)]) -> Principal:
    """Who asks, as a manager. Raises Unauthenticated, Forbidden."""
    if principal.role is not Role.MANAGER:
        raise Forbidden(Role.MANAGER)
    return principal


AsCustomer = Annotated[Principal, Depends(get_customer)]
AsManager = Annotated[Principal, Depends(get_manager)]


def time_header(now: datetime) -> dict[str, str]:
    """The reply's header with PostgreSQL's time, RFC 3339 in UTC."""
    return {TIME_HEADER: rfc3339(now)}
