"""Sign-up and sign-in."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import AfterValidator, BeforeValidator, EmailStr, Field

from service.accounts import accounts
from service.accounts.accounts import Attempt, NewAccount
from service.accounts.passwords import PASSWORD_BYTES_MAX, weakness
from service.accounts.tokens import Principal, Role
from service.api import refusals, shown
from service.api.context import ClientAddress, Context, InContext
from service.api.customer import REPLAYED, REPLAYED_HEADER, IdempotencyKey
from service.api.fields import NO_CONTROL_CHARACTERS, Body, Name, Printable, Reply, broken
from service.errors import (
    AddressInUse,
    Busy,
    DatabaseAway,
    IdempotencyKeyReused,
    Invalid,
    OutcomeUnknown,
    TooManyRequests,
    WrongCredentials,
)

router = APIRouter(tags=["accounts"])


def _bare(email: Any) -> Any:
    # EmailStr would accept "Ada <ada@example.com>", and the account would get only the address in it.
    if isinstance(email, str) and "<" in email:
        raise broken("must be the address alone")
    return email


def _short_enough(password: str) -> str:
    if len(password.encode()) > PASSWORD_BYTES_MAX:
        raise broken(f"must have at most {PASSWORD_BYTES_MAX} bytes")
    return password


def _strong(password: str) -> str:
    if weak := weakness(password):
        raise broken(weak)
    return password


EMAIL = "ada@example.com"
PASSWORD = "correct horse battery"  # noqa: S105 - an example in the documentation


class SignUp(Body):
    """A new account. The role MANAGER is only for servers that are set up for development."""

    email: Annotated[EmailStr, Field(max_length=320, examples=[EMAIL]), BeforeValidator(_bare)]
    password: Annotated[
        str,
        Field(min_length=8, max_length=PASSWORD_BYTES_MAX, examples=[PASSWORD]),
        AfterValidator(_short_enough),
        AfterValidator(_strong),
    ]
    name: Annotated[Name, Field(examples=["Ada Lovelace"])]
    role: Annotated[Role, Field(strict=False, examples=["CUSTOMER"])] = Role.CUSTOMER


class SignIn(Body):
    """The address, in upper or lower case, and the password."""

    email: Annotated[
        str, Field(min_length=1, max_length=320, pattern=NO_CONTROL_CHARACTERS, examples=[EMAIL]), Printable
    ]
    password: Annotated[
        str, Field(min_length=1, max_length=PASSWORD_BYTES_MAX, examples=[PASSWORD]), AfterValidator(_short_enough)
    ]


class SignedIn(Reply):
    """Send the token as `Authorization: Bearer <token>`."""

    token: Annotated[str, Field(description="A JWT", examples=["eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.c2ln"])]
    expires_at: shown.Moment
    account_id: Annotated[UUID, Field(examples=["01926e2c-5a00-7000-8000-000000000002"])]
    name: Annotated[str, Field(examples=["Ada Lovelace"])]
    role: Role


@router.post(
    "/sign-up",
    status_code=201,
    summary="Sign up",
    responses={
        201: {"headers": REPLAYED},
        **refusals.responses(
            AddressInUse, IdempotencyKeyReused, *refusals.BODY, TooManyRequests, Busy, DatabaseAway, OutcomeUnknown
        ),
    },
)
async def sign_up(
    body: SignUp,
    context: InContext,
    client_address: ClientAddress,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> SignedIn:
    """Create an account and get a token for it."""
    if body.role is Role.MANAGER and not context.settings.open_manager_sign_up:
        raise Invalid("role", "must be CUSTOMER on this server")
    signed_up = await accounts.sign_up(
        context.engine,
        context.passwords,
        NewAccount(body.email, body.password, body.name, body.role, idempotency_key, client_address),
    )
    if signed_up.replayed:
        response.headers[REPLAYED_HEADER] = "true"
    return _signed_in(context, response, Principal(signed_up.account_id, body.role), body.name)


@router.post(
    "/sign-in",
    summary="Sign in",
    responses=refusals.responses(WrongCredentials, *refusals.BODY, TooManyRequests, Busy, DatabaseAway),
)
async def sign_in(body: SignIn, context: InContext, client_address: ClientAddress, response: Response) -> SignedIn:
    """Get a token. After several wrong passwords for an address, each attempt takes longer, even with the right one."""
    principal, name = await accounts.sign_in(
        context.engine, context.passwords, context.delays, Attempt(body.email, body.password, client_address)
    )
    return _signed_in(context, response, principal, name)


def _signed_in(context: Context, response: Response, principal: Principal, name: str) -> SignedIn:
    token, expires_at = context.tokens.issue(principal)
    response.headers["Cache-Control"] = "no-store"
    return SignedIn(token=token, expires_at=expires_at, account_id=principal.account_id, name=name, role=principal.role)
