"""What every route may use: the process's singletons, who asks, and the headers that replies share."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, cast

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.ext.asyncio import AsyncEngine

from service.accounts import Delays, Passwords
from service.booking import BoxOffice
from service.errors import Forbidden, Unauthenticated
from service.listings import SessionList
from service.settings import Settings
from service.tokens import Principal, Role, Tokens

TIME_HEADER = "Rowlock-Time"
"""PostgreSQL's present time in a reply, which a countdown to `expiresAt` starts from."""


@dataclass(frozen=True, slots=True)
class Context:
    """One per process, made by the lifespan of `service.app`."""

    settings: Settings
    engine: AsyncEngine
    box_office: BoxOffice
    sessions: SessionList
    tokens: Tokens
    passwords: Passwords
    delays: Delays


async def get_context(request: Request) -> Context:
    """The process's context, from the lifespan state."""
    return cast("Context", request.state.context)


# All of them are coroutines: FastAPI runs plain functions in threads, for which nothing here is made.
InContext = Annotated[Context, Depends(get_context)]

bearer = HTTPBearer(auto_error=False, description="The token from `POST /sign-up` or `POST /sign-in`")


async def get_principal(
    context: InContext, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]
) -> Principal:
    """Who asks. Raises Unauthenticated."""
    if credentials is None:
        raise Unauthenticated
    return context.tokens.check(credentials.credentials)


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
    return {TIME_HEADER: now.isoformat().replace("+00:00", "Z")}
