"""Liveness and readiness."""

from contextlib import suppress

from fastapi import APIRouter
from starlette.responses import JSONResponse

from service.api import refusals
from service.api.context import InContext
from service.database import ping
from service.errors import Busy, DatabaseAway, NotReady

router = APIRouter(tags=["operations"])


@router.get("/livez", summary="Liveness")
async def livez() -> JSONResponse:
    """The process answers. The database is not asked: its failure must not restart the pods."""
    return JSONResponse({"status": "alive"})


@router.get(
    "/readyz",
    summary="Readiness",
    responses=refusals.responses(DatabaseAway, NotReady),
)
async def readyz(context: InContext) -> JSONResponse:
    """PostgreSQL answers, and its schema fits. A busy connection pool counts as ready: other replicas are as busy."""
    with suppress(Busy):
        await ping(context.engine)
    return JSONResponse({"status": "ready"})
