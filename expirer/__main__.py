"""`python -m expirer`: runs the loops, answers `/livez`, and finishes the current steps on SIGTERM."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from expirer.commands import cursors, parked
from expirer.wiring import Loops
from service import VERSION, hosts, settings
from service.database import create_engine, ping
from service.errors import NotReady, Unavailable
from service.observability import logs, tracing
from service.observability.metrics.exposition import exposed
from service.settings import Settings
from service.settings.unknown import warn_of_unknown

START_FAILED = 3
"""Exit code, as of uvicorn's own commands."""

log = structlog.stdlib.get_logger("rowlock.expirer")


def create_app(loaded: Settings) -> Starlette:
    """An ASGI application that runs the loops during its lifespan and answers `/livez`."""
    engine = create_engine(loaded, "rowlock-expirer")
    loops = Loops.create(engine, loaded)
    supervisor = loops.supervisor

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        try:
            await ping(engine)
        except Unavailable as error:
            # PostgreSQL may start later: a restart of the expirer would not help.
            log.warning("PostgreSQL does not answer yet", cause=repr(error.__cause__))
        except NotReady as error:
            log.critical("not starting", reason=str(error))
            raise
        running = asyncio.create_task(supervisor.run())
        async with exposed("expirer", VERSION, loaded.host, loaded.expirer_metrics_port, engine):
            yield
            supervisor.stop()
            await running
        await loops.close()
        await engine.dispose()

    async def livez(_request: Request) -> JSONResponse:
        silent = supervisor.silent(loaded.heartbeat_seconds_max)
        return JSONResponse({"status": "dead" if silent else "alive", "silent": silent}, 503 if silent else 200)

    @asynccontextmanager
    async def traced(app: Starlette) -> AsyncIterator[None]:
        async with tracing.exported(loaded, "rowlock-expirer"), lifespan(app):
            yield

    return Starlette(routes=[Route("/livez", livez)], lifespan=traced)


def main() -> None:
    """Runs until SIGTERM or SIGINT and exits with 0. After a failure it exits with 1 or 3 and logs the reason.

    With `parked` or `cursors` and a verb it runs that operator's command instead.
    """
    commands = {"parked": parked.main, "cursors": cursors.main}
    if sys.argv[1:]:
        command = commands.get(sys.argv[1])
        if command is None:
            sys.exit(f"expirer: unknown argument {sys.argv[1]}; only {', '.join(commands)} are known")
        command(sys.argv[2:])
        return
    try:
        loaded = settings.load()
    except NotReady as error:
        sys.exit(f"expirer: {error}")
    logs.configure_logging(loaded.log_level, loaded.log_format)
    warn_of_unknown()
    # uvicorn raises the signal that ended it again. It has been handled already.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    _serve(loaded)


def _serve(loaded: Settings) -> None:
    try:
        # uvicorn would serve only IPv6 on "::". The API and the metrics serve both.
        listening = hosts.bound(loaded.host, loaded.expirer_port)
    except OSError as error:
        log.critical("not starting", reason=str(error))
        sys.exit(START_FAILED)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(loaded),
            loop="uvloop",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=loaded.shutdown_seconds,
        )
    )
    server.run(sockets=[listening])
    if not server.started:
        sys.exit(START_FAILED)


if __name__ == "__main__":
    main()
