"""Tokens: a JWT, signed with HS256 only, with the account's id and role and the time when it expires."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

import jwt
from cachetools import LRUCache

from service.errors import TokenFault, Unauthenticated
from service.settings import Settings

ALGORITHM = "HS256"
CACHED_MAX = 10_000
CLOCKS_DIFFER_SECONDS = 5
"""A token may come from another process whose clock is ahead. Its end is never later for that."""


class Role(StrEnum):
    """The permissions of an account: to buy seats, or to create sessions."""

    CUSTOMER = "CUSTOMER"
    MANAGER = "MANAGER"


@dataclass(frozen=True, slots=True)
class Principal:
    """The account that sends a request, with the role that it had when it signed in."""

    account_id: UUID
    role: Role


class Tokens:
    """Issues and checks tokens. A valid token is remembered until its `exp`, and at most `cached_max` of them are."""

    def __init__(self, settings: Settings, cached_max: int = CACHED_MAX) -> None:
        self._secret = settings.token_secret.get_secret_value()
        self._issuer = settings.token_issuer
        self._audience = settings.token_audience
        self._lifetime = timedelta(minutes=settings.token_minutes)
        self._checked: LRUCache[str, tuple[Principal, float]] = LRUCache(cached_max)

    def issue(self, principal: Principal) -> tuple[str, datetime]:
        """A token, and the time when it expires."""
        now = datetime.now(UTC).replace(microsecond=0)
        expires_at = now + self._lifetime
        claims: dict[str, Any] = {
            "sub": str(principal.account_id),
            "role": principal.role.value,
            "iss": self._issuer,
            "aud": self._audience,
            "iat": now,
            "exp": expires_at,
        }
        return jwt.encode(claims, self._secret, ALGORITHM), expires_at

    def check(self, token: str) -> Principal:
        """The account of the token. Raises Unauthenticated where the token is forged, damaged or expired."""
        if known := self._checked.get(token):
            principal, expires_at = known
            if expires_at > time.time():
                return principal
            del self._checked[token]
        principal, expires_at = self._decode(token)
        self._checked[token] = principal, expires_at
        return principal

    def _decode(self, token: str) -> tuple[Principal, float]:
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                issuer=self._issuer,
                audience=self._audience,
                leeway=CLOCKS_DIFFER_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
            principal, expires_at = Principal(UUID(claims["sub"]), Role(claims["role"])), float(claims["exp"])
        except jwt.ExpiredSignatureError:
            raise Unauthenticated(TokenFault.EXPIRED) from None
        except (jwt.InvalidTokenError, ValueError, KeyError, TypeError):
            raise Unauthenticated(TokenFault.DAMAGED) from None
        if expires_at <= time.time():
            raise Unauthenticated(TokenFault.EXPIRED)
        return principal, expires_at
