"""The API's only wiring: `create_app` assembles lifespan, middleware, routes and error responses."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import TypedDict

import structlog
from fastapi import APIRouter, Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service import VERSION, settings
from service.accounts.delays import Delays
from service.accounts.passwords import Passwords
from service.accounts.tokens import Tokens
from service.admission.ratelimit import RateLimits
from service.api import (
    abuse,
    accounts,
    audits,
    customer,
    document,
    faults,
    health,
    httperrors,
    listings,
    manager,
    problems,
    undeclared,
)
from service.api.bodylimit import BodyLimit
from service.api.context import Context, limit_refused
from service.api.documentation import add_documentation
from service.api.largebody import LargeBodies
from service.api.lean import LeanRoutes
from service.api.mapbody import MapBodies
from service.api.requestlog import RequestLog
from service.cache import Cache
from service.database import create_engine, ping
from service.errors import NotReady, RowlockError, Unauthenticated, Unavailable
from service.events.wakeups import Bell
from service.ledger.booking import BoxOffice
from service.ledger.claims import Rules
from service.ledger.cooldown import Patience
from service.ledger.history import Histories
from service.ledger.limits import limits_of
from service.observability import logs, tracing
from service.observability.metrics import recording
from service.observability.metrics.exposition import exposed
from service.seatmap.maps import SeatMaps
from service.sessions.listing import SessionList
from service.settings import Settings
from service.single_flight import SingleFlight

DESCRIPTION = """
Sign up or sign in, press *Authorize* and paste the token. Hold seats, and pay before `expiresAt`: unpaid seats are
released.

A hold with an `Idempotency-Key` may be sent again at any time. It gets its first reply again, marked
`Idempotency-Replayed: true`, even after the hold has ended. `Rowlock-Time` is the server's current time. Refusals are
`application/problem+json` (RFC 9457) with a stable `type`.
"""
ROUTERS = tuple(module.router for module in (accounts, customer, listings, manager, audits, abuse, health))
OF_UNKNOWN_CALLERS = (Unauthenticated, httperrors.RouteNotFound, httperrors.MethodNotAllowed, httperrors.MalformedBody)
"""Refusals before an account is known, and so before its limit counts. Those of `BodyLimit` are counted there."""

log = structlog.stdlib.get_logger("rowlock")


class State(TypedDict):
    """Every request's `request.state`, from the lifespan."""

    context: Context


def create_app(loaded: Settings | None = None) -> FastAPI:
    """The API. Raises NotReady if the settings are invalid; its lifespan raises NotReady if the schema is too old."""
    loaded = loaded or settings.load()
    logs.configure_logging(loaded.log_level, loaded.log_format)
    app = FastAPI(
        title="Rowlock",
        summary="Seat reservations that are never sold twice",
        description=DESCRIPTION,
        version=VERSION,
        **document.ABOUT,
        servers=[{"url": loaded.root_path or "/"}],
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        # Behind a proxy that ends TLS, a redirect would lead to http, and the token with it.
        redirect_slashes=False,
        # `service.observability` has its own traces and metrics. Only to find out costs 8 µs a request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        lifespan=lambda app: _traced_lifespan(app, loaded),
        exception_handlers={
            RowlockError: _answer,
            RequestValidationError: _answer_invalid,
            HTTPException: _answer_http,
        },
    )
    # The first that is added is the innermost.
    app.add_middleware(LeanRoutes, routes=_routes(customer.router, listings.router), answer=_answer)
    app.add_middleware(
        BodyLimit,
        bytes_max=loaded.body_bytes_max,
        bytes_max_by_path={manager.CREATE_PATH: loaded.session_body_bytes_max},
    )
    app.add_middleware(RequestLog)
    for router in ROUTERS:
        # Probes and proxies may add a query string of their own.
        is_probed = router is health.router
        app.include_router(router, dependencies=[] if is_probed else [Depends(undeclared.refuse)])
    if loaded.docs:
        add_documentation(app)
    document.complete(app, _routes(*ROUTERS), loaded)
    return app


@asynccontextmanager
async def _traced_lifespan(app: FastAPI, loaded: Settings) -> AsyncIterator[State]:
    async with tracing.exported(loaded, "rowlock-api"), _lifespan(app, loaded) as state:
        yield state


@asynccontextmanager
async def _lifespan(_app: FastAPI, loaded: Settings) -> AsyncIterator[State]:
    engine = create_engine(loaded, "rowlock-api")
    cache = Cache(loaded) if loaded.redis_url else None
    bell = Bell(loaded, "rowlock-wakeups")
    context = _context_of(loaded, engine, cache, bell)
    try:
        await ping(engine)
    except Unavailable as error:
        # It may come later. Until then /readyz answers 503 and tries again.
        log.warning("PostgreSQL does not answer yet", cause=repr(error.__cause__))
    except NotReady as error:
        log.critical("not starting", reason=str(error))
        await engine.dispose()
        raise
    try:
        async with exposed("API", VERSION, loaded.host, loaded.metrics_port, engine):
            recording.requests_expected(_routed())
            yield {"context": context}
    finally:
        await context.box_office.drain()
        await context.seat_maps.drain()
        context.passwords.close()
        await context.limits.close()
        await bell.close()
        if cache:
            await cache.close()
        await engine.dispose()


def _context_of(loaded: Settings, engine: AsyncEngine, cache: Cache | None, bell: Bell) -> Context:
    seat_maps = SeatMaps(engine, cache, loaded)
    return Context(
        settings=loaded,
        engine=engine,
        box_office=BoxOffice(
            engine,
            Rules(
                loaded.hold_seconds,
                loaded.seats_per_customer_max,
                Patience(loaded.unpaid_ends_max, loaded.rehold_seconds, loaded.seats_per_customer_max),
            ),
            customer.render_hold,
            limits_of(loaded),
            bell.ring,
        ),
        histories=Histories(engine, loaded.history_searches_max, loaded.pool_wait_ms / 1000),
        sessions=SessionList(engine, seat_maps, loaded.counts_seconds),
        seat_maps=seat_maps,
        map_bodies=MapBodies(),
        large_bodies=LargeBodies(),
        tokens=Tokens(loaded),
        passwords=Passwords(loaded.password_queue_max),
        delays=Delays(loaded.sign_in_delay_ms_max),
        limits=RateLimits(cache, loaded),
        readiness=SingleFlight("readiness"),
    )


def _routed() -> Iterator[tuple[str, str]]:
    for route in _routes(*ROUTERS):
        assert route.methods
        yield from ((method, route.path) for method in route.methods)


def _routes(*routers: APIRouter) -> Iterator[APIRoute]:
    for route in (route for router in routers for route in router.routes):
        assert isinstance(route, APIRoute)
        yield route


async def _answer(request: Request, error: Exception) -> Response:
    assert isinstance(error, RowlockError)
    if isinstance(error, Unavailable):
        # For the request's log line.
        cause = {"cause": repr(error.__cause__)} if error.__cause__ else {}
        request.state.failure = {"error": repr(error)} | cause
    return await _refuse(request, error)


async def _answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _refuse(request, faults.refusal_of(error.errors()))


async def _answer_http(request: Request, error: Exception) -> Response:
    """The framework's own refusals: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    if error.status_code == problems.PROBLEMS[httperrors.MethodNotAllowed].status:
        allow = _methods_of(request.scope["path"]) or (error.headers or {}).get("Allow", "")
        return await _refuse(request, httperrors.MethodNotAllowed(allow))
    if error.status_code == problems.PROBLEMS[httperrors.MalformedBody].status:
        return await _refuse(request, httperrors.MalformedBody())
    return await _refuse(request, httperrors.RouteNotFound())


async def _refuse(request: Request, error: RowlockError) -> Response:
    if isinstance(error, OF_UNKNOWN_CALLERS):
        error = await limit_refused(request, error)
    return problems.render(error, request.state.request_id)


def _methods_of(path: str) -> str:
    """For the header `Allow`. The framework names the methods of one route, and a path may have several."""
    found = (route.methods or () for route in _routes(*ROUTERS) if route.path_regex.match(path))
    named = {method for methods in found for method in methods}
    return ", ".join(sorted(named | ({"HEAD"} if "GET" in named else set())))
