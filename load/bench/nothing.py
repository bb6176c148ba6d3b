"""N: a route that does nothing, served as the API is. No service in Python on this machine is faster."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def _nothing(_request: Request) -> Response:
    return Response(b"ok", media_type="text/plain")


def create_app() -> Starlette:
    """The application for gunicorn."""
    return Starlette(routes=[Route("/nothing", _nothing), Route("/readyz", _nothing)])
