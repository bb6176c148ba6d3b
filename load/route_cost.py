"""`python -m load.route_cost`: what the API itself costs for each request, in microseconds of CPU.

Calls the ASGI application in this process, without sockets. The ledger and the maps are replaced by objects that answer
at once, so that only the API's own work is left: middleware, routing, validation, token, limits, reply, metrics and log
line. The requests take turns in short batches; medians. Only ratios within a run count.
"""

import os
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import uvloop
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from uuid_utils.compat import uuid7

from service.accounts.tokens import Principal, Role
from service.api.customer import render_hold
from service.api.lean import LeanRoutes
from service.app import _context_of, create_app
from service.database import create_engine
from service.events.wakeups import Bell
from service.ledger.claims import Held, HoldRequest
from service.ledger.settling import Settled, SettleRequest
from service.reservation import Reservation, Seat, State
from service.seatmap.maps import SeatMap
from service.seatmap.stored import Layout
from tests.stage.factories import make_settings

ROUNDS, BATCH = 20, 50
SEATS = (Seat(17, 1, "A17", 1250), Seat(18, 2, "A18", 1250))
NOW = datetime(2030, 6, 1, 17, 0, 0, 123456, tzinfo=UTC)
ID = UUID("01926e2c-5a00-7000-8000-000000000001")
App = Callable[[Any, Any, Any], Awaitable[None]]


def reservation(state: State) -> Reservation:
    """A reservation of two seats."""
    settled_at = None if state is State.HELD else NOW
    deadline = NOW + timedelta(seconds=30)
    return Reservation(ID, ID, 1, (17, 18), state, 2500, "EUR", NOW, deadline, settled_at)


class Answers:
    """The ledger, which grants every request at once, and the maps, whose one map never changes."""

    def __init__(self) -> None:
        placements = tuple(f"A{n}" for n in range(200))
        layout = Layout("history", range(1, 201), placements, (1250,) * 200, "EUR", 0)
        self._map = SeatMap(layout, b"A" * 200, "redis", NOW, 40)

    async def hold(self, _request: HoldRequest) -> Held:
        """Holds the seats."""
        return Held(render_hold(reservation(State.HELD), SEATS), replayed=False, now=NOW)

    async def settle(self, request: SettleRequest) -> Settled:
        """Pays or releases."""
        return Settled(reservation(request.target), SEATS, changed=True, now=NOW)

    async def get(self, _session_id: int) -> SeatMap:
        """The map."""
        return self._map

    async def page(self, _after: object, _size: int) -> list[Any]:
        """No sessions."""
        return []


def request(method: str, path: str, token: str | None, body: bytes = b"", **headers: str) -> Mapping[str, Any]:
    """An ASGI scope with a browser's headers, and the body."""
    sent = {"host": "rowlock", "user-agent": "Mozilla/5.0", "accept": "*/*", "accept-encoding": "br"}
    sent |= {"authorization": f"Bearer {token}"} if token else {}
    sent |= {"content-type": "application/json"} if body else {}
    sent |= {"content-length": str(len(body)), **{name.replace("_", "-"): value for name, value in headers.items()}}
    raw = [(name.encode(), value.encode()) for name, value in sent.items()]
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": "",
        "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "headers": raw,
        "client": ("192.0.2.1", 50_000), "server": ("192.0.2.2", 3_000), "body": body,
    }  # fmt: skip


async def answered(app: App, state: Mapping[str, Any], scope: Mapping[str, Any]) -> tuple[int, bytes]:
    """The status and the body of one answer."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": scope["body"], "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({**scope, "state": dict(state)}, receive, send)
    return sent[0]["status"], sent[-1]["body"]


async def costs(app: App, state: Mapping[str, Any], scope: Mapping[str, Any]) -> float:
    """Microseconds of CPU for each of a batch of requests."""
    began = time.process_time()
    for _ in range(BATCH):
        await answered(app, state, scope)
    return (time.process_time() - began) / BATCH * 1e6


async def _nothing(_request: Any) -> Response:
    return Response(b"{}", media_type="application/json")


Requests = Mapping[str, tuple[App, Mapping[str, Any], Mapping[str, Any]]]


def prepared() -> Requests:
    """By name: an application, its state, and a request to it. `FastAPI` is the same route without the lean one."""
    settings = make_settings("postgresql://nobody@nowhere/nothing", log_level="info")
    answers: Any = Answers()
    context = replace(
        _context_of(settings, create_engine(settings, "rowlock-cost"), None, Bell(settings, "rowlock-cost")),
        box_office=answers, seat_maps=answers, sessions=answers,
    )  # fmt: skip
    token, _ = context.tokens.issue(Principal(uuid7(), Role.CUSTOMER))
    body = orjson.dumps({"seatIds": [17, 18]})
    requests = {
        "hold two seats": request("POST", "/customer/book", token, body, idempotency_key="b6f1a2c4-first-try"),
        "hold one seat": request("POST", "/customer/book/17", token),
        "pay": request("PUT", f"/customer/pay/{ID}", token),
        "release": request("DELETE", f"/customer/reservation/{ID}", token),
        "map of 200 seats": request("GET", "/customer/session/1", None),
        "list sessions": request("GET", "/customer/list-sessions", token),
    }
    lean, plain = create_app(settings), create_app(settings)
    left_out: Any = LeanRoutes
    plain.user_middleware = [each for each in plain.user_middleware if each.cls is not left_out]
    nothing = Starlette(routes=[Route("/nothing", _nothing, methods=["GET"])])
    found: dict[str, Any] = {"nothing, in Starlette": (nothing, {}, request("GET", "/nothing", None))}
    for name, scope in requests.items():
        found[name] = (lean, {"context": context}, scope)
        found[f"{name}, FastAPI"] = (plain, {"context": context}, scope)
    return found


async def measure() -> Mapping[str, Sequence[float]]:
    """The costs of each request's batches."""
    found: dict[str, list[float]] = {}
    for name, given in (requests := prepared()).items():
        status, _ = await answered(*given)
        if status not in (200, 201):
            raise RuntimeError(f"{name}: {status}")
    for _ in range(ROUNDS):
        for name, given in requests.items():
            found.setdefault(name, []).append(await costs(*given))
    return found


def main() -> None:
    """Prints the table. The log lines go to /dev/null."""
    with Path(os.devnull).open("w", buffering=1) as nowhere, redirect_stderr(nowhere):
        found = uvloop.run(measure())
    print("µs of CPU for each request          median       min")  # noqa: T201
    for name, values in found.items():
        print(f"{name:32}{statistics.median(values):10.1f}{min(values):10.1f}")  # noqa: T201


if __name__ == "__main__":
    main()
