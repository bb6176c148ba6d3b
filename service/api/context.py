"""Dependencies of the routes: the process's singletons, the signed-in account, and the limits on requests."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, cast

from fastapi import Depends, Request, Security
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from sqlalchemy.ext.asyncio import AsyncEngine

from service.accounts.delays import Delays
from service.accounts.passwords import Passwords
from service.accounts.tokens import Principal, Role, Tokens
from service.admission.ratelimit import RateLimits
from service.admission.windows import Limit
from service.api.largebody import LargeBodies
from service.api.mapbody import MapBodies
from service.errors import Forbidden, RowlockError, TokenFault, TooManyRequests, Unauthenticated
from service.ledger.booking import BoxOffice
from service.ledger.history import Histories
from service.moments import rfc3339
from service.seatmap.maps import SeatMaps
from service.sessions.listing import SessionList
from service.settings import Settings
from service.single_flight import SingleFlight

TIME_HEADER = "Rowlock-Time"
"""PostgreSQL's current time in a reply, from which a countdown to `expiresAt` starts."""


@dataclass(frozen=True, slots=True)
class Context:
    """The process's singletons, made by the lifespan of `service.app`."""

    settings: Settings
    engine: AsyncEngine
    box_office: BoxOffice
    histories: Histories
    sessions: SessionList
    seat_maps: SeatMaps
    map_bodies: MapBodies
    large_bodies: LargeBodies
    tokens: Tokens
    passwords: Passwords
    delays: Delays
    limits: RateLimits
    readiness: SingleFlight[str, None]


async def get_context(request: Request) -> Context:
    """The process's context, from the lifespan state."""
    return cast("Context", request.scope["state"]["context"])


# All dependencies are coroutines: FastAPI would run plain functions in threads, and nothing here is thread-safe.
InContext = Annotated[Context, Depends(get_context)]


class Bearer(SecurityBase):
    """The token of the header `Authorization`. FastAPI's own class would make a model for each request."""

    model = HTTPBearer(description="The token from `POST /sign-up` or `POST /sign-in`")
    scheme_name = "HTTPBearer"

    async def __call__(self, request: Request) -> str:
        """The token. Raises Unauthenticated where there is none."""
        given = request.headers.get("authorization", "").strip()
        scheme, _, token = given.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated(TokenFault.NO_BEARER if given else TokenFault.MISSING)
        if not token:
            raise Unauthenticated(TokenFault.MISSING)
        return token.strip()


bearer = Bearer()
Token = Annotated[str, Security(bearer)]


async def get_principal(context: InContext, token: Token) -> Principal:
    """The signed-in account. Raises Unauthenticated, TooManyRequests."""
    principal = context.tokens.check(token)
    await context.limits.check(context.limits.account, str(principal.account_id))
    return principal


async def get_payer(context: InContext, token: Token) -> Principal:
    """The signed-in customer who pays or releases: counted apart, so that many reads do not delay a payment.

    Raises Unauthenticated, Forbidden, TooManyRequests.
    """
    principal = context.tokens.check(token)
    await context.limits.check(context.limits.payment, str(principal.account_id))
    return await get_customer(principal)


async def limit_read(request: Request, context: InContext) -> None:
    """Counts a public read for the account, or for the address if there is no token. Raises TooManyRequests."""
    # The token is not declared as a dependency: the OpenAPI document would make it mandatory.
    try:
        await get_principal(context, await bearer(request))
    except Unauthenticated:
        await _limit_address(request, context, context.limits.address)


async def limit_sign_in(request: Request, context: InContext) -> str:
    """Counts a sign-up or a sign-in for the address, and returns it. Raises TooManyRequests."""
    return await _limit_address(request, context, context.limits.sign_in)


ClientAddress = Annotated[str, Depends(limit_sign_in)]


async def limit_refused(request: Request, error: RowlockError) -> RowlockError:
    """Counts a refusal for the address, because no account is known. Returns it, or TooManyRequests instead."""
    context: Context = request.scope["state"]["context"]
    try:
        await _limit_address(request, context, context.limits.refused)
    except TooManyRequests as too_many:
        return too_many
    return error


async def _limit_address(request: Request, context: Context, limit: Limit) -> str:
    forwarded_for = ",".join(request.headers.getlist("x-forwarded-for"))
    peer = request.client.host if request.client else None
    address = context.limits.client_address(peer, forwarded_for)
    await context.limits.check(limit, address)
    return address


async def get_customer(principal: Annotated[Principal, Depends(get_principal)]) -> Principal:
    """The signed-in customer. Raises Unauthenticated, Forbidden."""
    if principal.role is not Role.CUSTOMER:
        raise Forbidden(Role.CUSTOMER)
    return principal


async def get_manager(principal: Annotated[Principal, Depends(get_principal)]) -> Principal:
    """The signed-in manager. Raises Unauthenticated, Forbidden."""
    if principal.role is not Role.MANAGER:
        raise Forbidden(Role.MANAGER)
    return principal


AsCustomer = Annotated[Principal, Depends(get_customer)]
AsPayer = Annotated[Principal, Depends(get_payer)]
AsManager = Annotated[Principal, Depends(get_manager)]


def time_header(now: datetime) -> dict[str, str]:
    """The reply's header with PostgreSQL's time, RFC 3339 in UTC."""
    return {TIME_HEADER: rfc3339(now)}
