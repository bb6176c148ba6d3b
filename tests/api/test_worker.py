"""The configuration of gunicorn's workers."""

import gc

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse

from dev.postgres import Postgres
from service.app import create_app
from tests.stage.processes import gunicorn_process


def create_app_that_tells() -> FastAPI:
    """The API with a route for the number of objects that garbage collection skips."""
    app = create_app()
    app.add_route("/frozen", lambda _: PlainTextResponse(str(gc.get_freeze_count())))
    return app


@pytest.mark.usefixtures("sql")
async def test_garbage_collection_skips_objects_from_the_start(postgres: Postgres) -> None:
    app = "tests.api.test_worker:create_app_that_tells()"
    async with gunicorn_process(app, postgres.url()) as api, httpx.AsyncClient(base_url=api.url) as client:
        frozen = int((await client.get("/frozen")).text)
    assert frozen > 50_000, "not what was imported and made"
