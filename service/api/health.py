"""Is the process alive, and may it be sent requests?"""

from contextlib import suppress

from fastapi import APIRouter
from starlette.responses import JSONResponse

from service.api import refusals
from service.api.context import InContext
from service.database import ping
from service.errors import Busy, DatabaseAway, NotReady

router = APIRouter(tags=["operations"])


@router.get("/livez", summary="The process answers")
async def livez() -> JSONResponse:
    """Asks nothing and nobody else: a database that is away must not restart the pods."""
    return JSONResponse({"status": "alive"})


@router.get(
    "/readyz",
    summary="PostgreSQL answers, with a schema that fits",
    responses=refusals.responses(DatabaseAway, NotReady),
)
async def readyz(context: InContext) -> JSONResponse:
    """Asks PostgreSQL each time. A pool that is busy is no reason to send its requests to the next replica's."""
    with suppress(Busy):
        await ping(context.engine)
    return JSONResponse({"status": "ready"})
