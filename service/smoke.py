"""`python -m service.smoke URL`: checks over HTTP that a seat is held, refused to another customer, and sold.

ROWLOCK_SMOKE_EMAIL and ROWLOCK_SMOKE_PASSWORD are a manager's account. The check leaves behind a session, which is off
sale after some minutes, and two customer accounts with random passwords.
"""

import argparse
import asyncio
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

START_SECONDS_MAX = 30
"""A new installation may need this long until it answers."""
POLL_SECONDS = 0.5
ON_SALE_MINUTES = 5
"""Long enough for clocks that differ, and short, because customers can see the session."""
SHOWN_LENGTH_MAX = 300
PLACEMENTS = [f"A{number}" for number in range(1, 17)]


@dataclass(frozen=True, slots=True)
class Limits:
    """How long the command waits: for all of it, for the first answer, and for each answer."""

    seconds: float = 60
    start_seconds: float = START_SECONDS_MAX
    request_seconds: float = 10


class SmokeError(Exception):
    """An unexpected answer. The message is shown to the user."""


async def smoke(
    client: httpx.AsyncClient, email: str, password: str, start_seconds_max: float = START_SECONDS_MAX
) -> None:
    """Writes a line for each step. Raises SystemExit with the step that failed, and the reason."""
    with _step("it answers"):
        await _wait_for(client, start_seconds_max)
    with _step("a manager signs in"):
        account = await _ask(client, 200, "POST", "/sign-in", body={"email": email, "password": password})
    with _step("a session is put on sale"):
        session = await _ask(client, 201, "POST", "/manager/create", token=account["token"], body=_session())
    with _step("two customers sign up"):
        first, second = [await _sign_up(client) for _ in range(2)]
    book = f"/customer/book/{session['seats'][0]['seatId']}"
    with _step("the first one holds a seat"):
        held = await _ask(client, 201, "POST", book, token=first)
    with _step("the second one is refused"):
        await _refused(client, book, second)
    with _step("the first one pays"):
        await _ask(client, 200, "PUT", f"/customer/pay/{held['reservationId']}", token=first)
    with _step("the second one is still refused"):
        await _refused(client, book, second)
    with _step("the first one finds it in the history"):
        await _expect_purchase(client, first, held["reservationId"])


@contextmanager
def _step(name: str) -> Iterator[None]:
    try:
        yield
    except (SmokeError, httpx.HTTPError) as error:
        sys.exit(f"FAIL  {name}: {str(error) or type(error).__name__}")
    except asyncio.CancelledError:
        sys.stderr.write(f"FAIL  {name}: it was still waiting\n")
        raise
    sys.stdout.write(f"ok    {name}\n")
    sys.stdout.flush()


async def _wait_for(client: httpx.AsyncClient, seconds_max: float) -> None:
    """Returns when a read succeeds. Raises the error of the last read."""
    until = asyncio.get_running_loop().time() + seconds_max
    while True:
        try:
            await _ask(client, 200, "GET", "/customer/list-sessions?limit=1")
        except (SmokeError, httpx.TransportError):
            if asyncio.get_running_loop().time() > until:
                raise
            await asyncio.sleep(POLL_SECONDS)
        else:
            return


def _session() -> dict[str, Any]:
    return {
        "movie": "Smoke test",
        # A room has one session at a time.
        "room": f"Nowhere {secrets.token_hex(8)}",
        "showtime": (datetime.now(UTC) + timedelta(minutes=ON_SALE_MINUTES)).isoformat(),
        "duration": 1,
        "price": 0,
        "currency": "EUR",
        "placements": PLACEMENTS,
    }


async def _sign_up(client: httpx.AsyncClient) -> str:
    """A new customer's token."""
    body = {
        "email": f"smoke-{secrets.token_hex(8)}@example.com",
        "password": secrets.token_urlsafe(24),
        "name": "Smoke test",
    }
    token: str = (await _ask(client, 201, "POST", "/sign-up", body=body))["token"]
    return token


async def _refused(client: httpx.AsyncClient, path: str, token: str) -> None:
    refusal = await _ask(client, 409, "POST", path, token=token)
    if not refusal["type"].endswith("seats-taken"):
        raise SmokeError(f"POST {path} was refused with {refusal['type']} instead of seats-taken")


async def _expect_purchase(client: httpx.AsyncClient, token: str, reservation_id: str) -> None:
    path = "/customer/list-history"
    history = await _ask(client, 200, "GET", path, token=token)
    if [bought["reservationId"] for bought in history["reservations"]] != [reservation_id]:
        raise SmokeError(f"GET {path} does not show {reservation_id} alone")


async def _ask(  # noqa: PLR0913 - what a request is made of
    client: httpx.AsyncClient,
    expected: int,
    method: str,
    path: str,
    *,
    token: str | None = None,
    body: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The answer's body. Raises SmokeError where the status differs or the body is not JSON."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    reply = await client.request(method, path, headers=headers, json=body)
    said = f"{method} {path} was answered {reply.status_code} {reply.text[:SHOWN_LENGTH_MAX]}"
    if reply.status_code != expected:
        raise SmokeError(f"{said} instead of {expected}")
    try:
        answer: dict[str, Any] = reply.json()
    except ValueError:
        raise SmokeError(f"{said}, which is not JSON") from None
    return answer


async def _within_limits(url: str, email: str, password: str, limits: Limits) -> None:
    async with (
        asyncio.timeout(limits.seconds),
        httpx.AsyncClient(base_url=url, timeout=limits.request_seconds) as client,
    ):
        await smoke(client, email, password, limits.start_seconds)


def main(limits: Limits = Limits()) -> None:
    """Exits with 0 where every step succeeds, 1 where one fails, and 2 where an argument or the account is missing."""
    parser = argparse.ArgumentParser(prog="python -m service.smoke", description=__doc__)
    parser.add_argument("url", help="of the API, such as http://127.0.0.1:3000")
    url = parser.parse_args().url
    email, password = (os.environ.get(f"ROWLOCK_SMOKE_{name}", "") for name in ("EMAIL", "PASSWORD"))
    if not (email and password):
        parser.error("ROWLOCK_SMOKE_EMAIL and ROWLOCK_SMOKE_PASSWORD must name a manager's account")
    try:
        asyncio.run(_within_limits(url, email, password, limits))
    except TimeoutError:
        sys.exit(f"smoke: not done within {limits.seconds} s")


if __name__ == "__main__":
    main()
