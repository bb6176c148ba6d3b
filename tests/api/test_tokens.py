"""Tokens: only valid ones of this service are accepted, and a bounded number of them is remembered."""

import hmac
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import jwt
import orjson
import pytest

from service.accounts.tokens import Principal, Role, Tokens
from service.database import Connection
from service.errors import TokenFault, Unauthenticated
from service.settings import Settings
from tests.stage.edge import Refused, ledger
from tests.stage.factories import TOKEN_SECRET, make_customer, make_session, make_settings
from tests.stage.waiting import until

SAYS = {
    TokenFault.MISSING: "token is missing",
    TokenFault.NO_BEARER: "must be `Bearer`",
    TokenFault.DAMAGED: "damaged",
    TokenFault.EXPIRED: "expired",
    TokenFault.NO_ACCOUNT: "no longer exists",
}
"""A part of the answer that tells each fault from the others."""
SETTINGS = make_settings("postgresql://rowlock@127.0.0.1/rowlock")


def claims_of(account_id: object, **changes: Any) -> dict[str, Any]:
    """The claims of a good token; a change to None leaves the claim out."""
    now = int(time.time())
    claims = {
        "sub": str(account_id),
        "role": "CUSTOMER",
        "iss": SETTINGS.token_issuer,
        "aud": SETTINGS.token_audience,
        "iat": now,
        "exp": now + 3_600,
    } | changes
    return {name: value for name, value in claims.items() if value is not None}


def signed(account_id: object, *, secret: str = TOKEN_SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    """A token that somebody else might have made; by hand, because the library makes no bad ones."""
    unsigned = f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part(claims_of(account_id, **changes))}"
    digest = hmac.digest(secret.encode(), unsigned.encode(), f"sha{algorithm[2:]}")
    return f"{unsigned}.{encoded(digest)}"


def encoded(octets: bytes) -> str:
    """Base64 as tokens have it."""
    return urlsafe_b64encode(octets).decode().rstrip("=")


def part(value: Any) -> str:
    """One part of a token."""
    return encoded(orjson.dumps(value))


def with_role(token: str, role: str) -> str:
    """The same token with another role, and the signature that it had."""
    header, claims, signature = token.split(".")
    changed = orjson.loads(urlsafe_b64decode(claims + "==")) | {"role": role}
    return f"{header}.{part(changed)}.{signature}"


def forged(account_id: object) -> dict[str, str]:
    """Tokens that must open nothing."""
    good, past = signed(account_id), int(time.time()) - 1
    unsigned = jwt.encode(claims_of(account_id), None, "none")
    return {
        "expired": signed(account_id, exp=past),
        "expired long ago": signed(account_id, exp=0),
        "past its end, of another secret": signed(account_id, exp=past, secret="x" * 32),
        "not valid yet": signed(account_id, nbf=int(time.time()) + 600),
        "another secret": signed(account_id, secret="x" * 32),
        "another issuer": signed(account_id, iss="somebody else"),
        "another audience": signed(account_id, aud="somebody else"),
        "no signature": unsigned,
        "no signature, in capitals": f"{part({'alg': 'NONE', 'typ': 'JWT'})}.{unsigned.split('.')[1]}.",
        "its signature taken off": good.rpartition(".")[0] + ".",
        "HS384": signed(account_id, algorithm="HS384"),
        "HS512": signed(account_id, algorithm="HS512"),
        "truncated": good[:-1],
        "truncated by half": good[: len(good) // 2],
        "two parts": good.rpartition(".")[0],
        "its role changed": with_role(good, "MANAGER"),
        "no exp": signed(account_id, exp=None),
        "no iss": signed(account_id, iss=None),
        "no aud": signed(account_id, aud=None),
        "no sub": signed(account_id, sub=None),
        "no role": signed(account_id, role=None),
        "an unknown role": signed(account_id, role="ADMIN"),
        "a sub that is no id": signed("ada"),
        "a sub that is a number": signed(account_id, sub=1),
        "an aud that is a number": signed(account_id, aud=1),
        "an exp that is a string": signed(account_id, exp="tomorrow"),
        "no token": "x.y.z",
    }


def odd_headers(good: str) -> dict[str, tuple[bytes, TokenFault]]:
    """Values of Authorization that must open nothing, and the fault of each."""
    missing, no_bearer, damaged = TokenFault.MISSING, TokenFault.NO_BEARER, TokenFault.DAMAGED
    return {
        "empty": (b"", missing),
        "scheme only": (b"Bearer", missing),
        "scheme and blank": (b"Bearer ", missing),
        "another scheme": (b"Basic " + good.encode(), no_bearer),
        "no scheme": (good.encode(), no_bearer),
        "no blank after the scheme": (b"Bearer" + good.encode(), no_bearer),
        "two tokens": (f"Bearer {good}, Bearer {good}".encode(), damaged),
        "two tokens in one": (f"Bearer {good} {good}".encode(), damaged),
        "not ASCII": (b"Bearer \xff\xfe.\xff.\xff", damaged),
        "UTF-8": ("Bearer ü.ü.ü".encode(), damaged),
        "long": (b"Bearer " + b"x" * 60_000, damaged),
    }


def fault_of(name: str) -> TokenFault:
    """The fault of a forged token: only one that the service has signed may be called expired."""
    return TokenFault.EXPIRED if name.startswith("expired") else TokenFault.DAMAGED


async def test_a_forged_damaged_or_expired_token_is_refused(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    seat_id = (await make_session(sql, settings)).seat_ids[0]
    headers = {
        name: (f"Bearer {token}".encode(), fault_of(name)) for name, token in forged(customer.id).items()
    } | odd_headers(signed(customer.id))
    before = await ledger(sql)
    wrong = {}
    for name, (value, fault) in headers.items():
        for method, path in (("GET", "/customer/list-history"), ("POST", f"/customer/book/{seat_id}")):
            reply = await client.request(method, path, headers=[(b"Authorization", value)])
            if complaint := Refused(401, "unauthenticated", says=SAYS[fault]).complaint(reply):
                wrong[f"{name}: {path}"] = complaint
            assert reply.headers.get("WWW-Authenticate") == "Bearer", name
    assert wrong == {}
    assert await ledger(sql) == before


async def test_a_request_without_the_header_is_told_to_send_a_token(client: httpx.AsyncClient) -> None:
    reply = await client.get("/customer/list-history")
    assert Refused(401, "unauthenticated", says=SAYS[TokenFault.MISSING]).complaint(reply) is None


async def test_the_scheme_of_a_token_is_accepted_in_any_case(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer = await make_customer(sql, settings)
    for scheme in ("Bearer", "bearer", "BEARER"):
        headers = {"Authorization": f"{scheme} {signed(customer.id)}"}
        assert (await client.get("/customer/list-history", headers=headers)).status_code == 200


async def test_a_token_of_an_account_that_is_gone_holds_nothing(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    seat_id = (await make_session(sql, settings)).seat_ids[0]
    before = await ledger(sql)
    reply = await client.post(f"/customer/book/{seat_id}", headers={"Authorization": f"Bearer {signed(uuid4())}"})
    assert Refused(401, "unauthenticated", says=SAYS[TokenFault.NO_ACCOUNT]).complaint(reply) is None
    assert await ledger(sql) == before


def test_an_issued_token_has_account_and_expiry_and_is_accepted() -> None:
    issuer = Tokens(SETTINGS)
    principal = Principal(uuid4(), Role.MANAGER)
    token, expires_at = issuer.issue(principal)
    claims = jwt.decode(token, TOKEN_SECRET, algorithms=["HS256"], audience=SETTINGS.token_audience)
    assert jwt.get_unverified_header(token)["alg"] == "HS256"
    assert set(claims) == {"sub", "role", "iss", "aud", "iat", "exp"}
    assert claims["exp"] - claims["iat"] == SETTINGS.token_minutes * 60
    assert datetime.fromtimestamp(claims["exp"], UTC) == expires_at
    assert issuer.check(token) == Tokens(SETTINGS).check(token) == principal


def test_a_token_of_another_issuer_or_audience_is_refused() -> None:
    token = Tokens(SETTINGS).issue(Principal(uuid4(), Role.CUSTOMER))[0]
    for change in ({"token_issuer": "theirs"}, {"token_audience": "theirs"}):
        with pytest.raises(Unauthenticated):
            Tokens(SETTINGS.model_copy(update=change)).check(token)


@pytest.mark.parametrize(
    ("iat", "exp", "is_accepted"),
    [(3, 60, True), (60, 120, False), (-60, 1, True), (-60, 0, False), (-60, -2, False)],
    ids=["issued by a clock ahead", "issued in the future", "before its end", "at its end", "after its end"],
)
def test_clocks_may_differ_at_the_issue_but_not_at_the_end(iat: int, exp: int, is_accepted: bool) -> None:  # noqa: FBT001
    now = int(time.time())
    token = signed(uuid4(), iat=now + iat, exp=now + exp)
    try:
        Tokens(SETTINGS).check(token)
    except Unauthenticated:
        assert not is_accepted
    else:
        assert is_accepted


async def test_a_remembered_token_is_refused_once_it_has_expired() -> None:
    checker = Tokens(SETTINGS)
    token = signed(uuid4(), exp=int(time.time()) + 2)
    assert checker.check(token).role is Role.CUSTOMER

    async def is_refused() -> bool:
        try:
            checker.check(token)
        except Unauthenticated:
            return True
        return False

    await until(is_refused, "the end of the token")


def test_at_most_the_last_tokens_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    decode = jwt.decode

    def decode_and_note(token: str, *arguments: Any, **options: Any) -> Any:
        decoded.append(token)
        return decode(token, *arguments, **options)

    monkeypatch.setattr(jwt, "decode", decode_and_note)
    checker = Tokens(SETTINGS, cached_max=3)
    first, *others = [checker.issue(Principal(uuid4(), Role.CUSTOMER))[0] for _ in range(4)]
    for token in (*others, *others):
        checker.check(token)
    assert decoded == others, "each was decoded once"
    for token in forged(uuid4()).values():
        with pytest.raises(Unauthenticated):
            checker.check(token)
    decoded.clear()
    for token in (*others, first, others[0]):
        checker.check(token)
    assert decoded == [first, others[0]], "refused tokens take no place, and a new one takes the oldest one's"
