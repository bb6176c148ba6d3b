"""Is the process alive, and may it be sent requests?"""

from fastapi import APIRouter
from starlette.responses import JSONResponse

from service.api import problems
from service.api.context import InContext
from service.database import check_schema, snapshot
from service.errors import DatabaseAway

router = APIRouter(tags=["operations"])

PING = """
select 1
"""


@router.get("/livez", summary="The process answers")
async def livez() -> JSONResponse:
    """Asks nothing and nobody else: a database that is away must not restart the pods."""
    return JSONResponse({"status": "alive"})


@router.get(
    "/readyz", summary="PostgreSQL answers, with a schema that fits", responses=problems.responses(DatabaseAway)
)
async def readyz(context: InContext) -> JSONResponse:
    """Asks PostgreSQL each time; for the schema until it has once been seen to fit."""
    if not context.is_ready:
        await check_schema(context.engine)
        context.is_ready = True
    async with snapshot(context.engine) as connection:
        await connection.fetchval(PING)
    return JSONResponse({"status": "ready"})
