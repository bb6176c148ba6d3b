"""Liveness and readiness."""

from contextlib import suppress
from typing import Literal

from fastapi import APIRouter
from starlette.responses import JSONResponse

from service.api import httperrors, refusals
from service.api.context import InContext
from service.api.fields import Reply
from service.database import ping
from service.errors import Busy, DatabaseAway, NotReady

router = APIRouter(tags=["operations"])


class Health(Reply):
    """The process can be used."""

    status: Literal["alive", "ready"]


@router.get(
    "/livez",
    summary="Liveness",
    response_model=Health,
    responses=refusals.responses(httperrors.UnsupportedMediaType),
)
async def livez() -> JSONResponse:
    """The process answers. The database is not asked: its failure must not restart the pods."""
    return JSONResponse({"status": "alive"})


@router.get(
    "/readyz",
    summary="Readiness",
    response_model=Health,
    responses=refusals.responses(httperrors.UnsupportedMediaType, DatabaseAway, NotReady),
)
async def readyz(context: InContext) -> JSONResponse:
    """PostgreSQL answers, and its schema fits. A busy connection pool counts as ready: other replicas are as busy."""
    with suppress(Busy):
        # Requests at the same time share one query: anyone may ask as often as they like.
        await context.readiness.run("ping", lambda: ping(context.engine))
    return JSONResponse({"status": "ready"})
