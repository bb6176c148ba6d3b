"""Customers who buy through the Ingress during a fault, and the answers that they got."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import httpx

from tests.cluster.kubernetes import Release

PAUSE_SECONDS = 0.1
ANSWER_SECONDS_MAX = 15
SIGN_UP_SECONDS_MAX = 60
PASSWORD = "correct horse battery"


@dataclass(slots=True)
class Shoppers:
    """`acknowledged` has the last acknowledged state of each reservation, or None after a missing answer.

    `aside` are seats that none of them wants. `failures` are requests without an answer, or with a 5xx or 429.
    `last_hold` is a monotonic time.
    """

    client: httpx.AsyncClient
    tokens: Sequence[str]
    seat_ids: Sequence[int]
    aside: Sequence[int] = ()
    acknowledged: dict[str, str | None] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    last_hold: float = 0.0
    closing: bool = False

    async def shop(self, token: str) -> None:
        """Holds two seats, then pays, releases or abandons them, until the block ends."""
        while not self.closing:
            seats = random.sample(self.seat_ids, 2)
            reply = await self._ask("POST", "/customer/book", token, {"seatIds": seats})
            if reply is not None and reply.status_code == httpx.codes.CREATED:
                self.last_hold = time.monotonic()
                await self._end(token, reply.json()["reservationId"])
            await asyncio.sleep(PAUSE_SECONDS)

    async def _end(self, token: str, id_: str) -> None:
        self.acknowledged[id_] = "HELD"
        method, path, state = random.choice(
            [("PUT", "/customer/pay/", "CONFIRMED"), ("DELETE", "/customer/reservation/", "CANCELLED"), ("", "", "")]
        )
        if method:
            reply = await self._ask(method, path + id_, token)
            done = reply is not None and reply.status_code == httpx.codes.OK
            self.acknowledged[id_] = None if reply is None else state if done else "EXPIRED"

    async def _ask(
        self, method: str, path: str, token: str, body: dict[str, list[int]] | None = None
    ) -> httpx.Response | None:
        """The answer, or None if there is none or it leaves the outcome open."""
        headers = {"Authorization": f"Bearer {token}"}
        if body:
            headers["Idempotency-Key"] = str(uuid4())
        try:
            reply = await self.client.request(method, path, json=body, headers=headers)
        except httpx.HTTPError as error:
            self.failures.append(f"{method} {path}: {error!r}")
            return None
        if reply.status_code >= httpx.codes.INTERNAL_SERVER_ERROR or reply.status_code == httpx.codes.TOO_MANY_REQUESTS:
            self.failures.append(f"{method} {path}: {reply.status_code} {reply.text[:200]}")
            return None
        return reply


def connect(release: Release, seconds_max: float = ANSWER_SECONDS_MAX) -> httpx.AsyncClient:
    """A client for the Ingress, with the release's host name."""
    limits = httpx.Limits(max_connections=64)
    return httpx.AsyncClient(
        base_url=release.cluster.url, headers={"Host": release.host}, timeout=seconds_max, limits=limits
    )


async def sign_up(client: httpx.AsyncClient, count: int) -> list[str]:
    """The tokens of this number of new customers."""
    turns = asyncio.Semaphore(8)

    async def one() -> str:
        body = {"email": f"{uuid4()}@example.com", "password": PASSWORD, "name": "Ada"}
        async with turns:
            # Hashing the passwords takes all available CPU.
            reply = await client.post("/sign-up", json=body, timeout=SIGN_UP_SECONDS_MAX)
        assert reply.status_code == httpx.codes.CREATED, reply.text
        return str(reply.json()["token"])

    return list(await asyncio.gather(*(one() for _ in range(count))))


async def put_on_sale(client: httpx.AsyncClient, release: Release, count: int) -> list[int]:
    """The seats of a new session. The manager is created as in the chart's notes."""
    email = f"{uuid4()}@example.com"
    make = ("exec", "-i", "deployment/rowlock-api", "-c", "api", "--", "python", "-m", "service.make_manager", email)
    await asyncio.to_thread(release.kubectl, *make, stdin=PASSWORD + "\n")
    reply = await client.post("/sign-in", json={"email": email, "password": PASSWORD})
    assert reply.status_code == httpx.codes.OK, reply.text
    body = {
        "movie": "Metropolis",
        "room": f"Room {uuid4()}",
        "showtime": "2040-06-01T18:00:00Z",
        "duration": 153,
        "price": 1250,
        "currency": "EUR",
        "placements": [f"R{n}" for n in range(count)],
    }
    headers = {"Authorization": f"Bearer {reply.json()['token']}"}
    reply = await client.post("/manager/create", json=body, headers=headers)
    assert reply.status_code == httpx.codes.CREATED, reply.text
    seats = (await client.get(f"/customer/session/{reply.json()['sessionId']}")).json()["seats"]
    return [seat["seatId"] for seat in seats]


@asynccontextmanager
async def shopping(release: Release, count: int = 6, seats: int = 3_000, aside: int = 0) -> AsyncIterator[Shoppers]:
    """This number of customers buys during the block, and leaves the first seats aside."""
    async with connect(release) as client:
        tokens, seat_ids = await sign_up(client, count), await put_on_sale(client, release, seats)
        shoppers = Shoppers(client, tokens, seat_ids[aside:], seat_ids[:aside])
        buying = asyncio.gather(*(shoppers.shop(token) for token in shoppers.tokens))
        try:
            yield shoppers
        finally:
            shoppers.closing = True
            await buying


async def until_sold_again(shoppers: Shoppers, seconds: float = 60) -> None:
    """Returns when a hold is acknowledged that began after the call."""
    began = time.monotonic()
    while shoppers.last_hold <= began:
        assert time.monotonic() < began + seconds, f"nothing was sold for {seconds:.0f} s: {shoppers.failures[-3:]}"
        await asyncio.sleep(PAUSE_SECONDS)
