"""The port on which Prometheus asks a process, and what is looked at twice a second for it.

Several workers of one gunicorn share a folder of files (`PROMETHEUS_MULTIPROC_DIR`, see `gunicorn.conf.py`): whichever
has the port answers for all of them. It answers from a thread, so also while the event loop is stuck.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import Thread
from wsgiref.simple_server import WSGIServer

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, disable_created_metrics, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool

from service.migrations import NEWEST
from service.observability.metrics import catalogue
from service.observability.metrics.families import Process, bind_all

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
SAMPLE_SECONDS = 0.5
PORT_RETRY_SECONDS = 1.0
"""A worker that takes another one's place has the port as soon as that one is gone."""

log = structlog.stdlib.get_logger("rowlock.metrics")


@asynccontextmanager
async def exposed(process: Process, version: str, host: str, port: int, engine: AsyncEngine) -> AsyncIterator[None]:
    """Answers on the port during the block; on none where it is 0. A port that can't be had stops no sale."""
    if not port:
        yield
        return
    disable_created_metrics()  # type: ignore[no-untyped-call]
    bind_all(catalogue.GROUPS, process)
    catalogue.BUILD.of(version, NEWEST).set(1)
    tasks = [asyncio.create_task(_answer(host, port)), asyncio.create_task(_sample(engine))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _answer(host: str, port: int) -> None:
    server: WSGIServer | None = None
    told = False
    while server is None:
        try:
            server, thread = start_http_server(port, host, _registry())
        except OSError as error:
            if not told:
                log.warning("the port of the metrics is not free yet", port=port, error=repr(error))
            told = True
            await asyncio.sleep(PORT_RETRY_SECONDS)
    try:
        await asyncio.Event().wait()
    finally:
        # It looks twice a second whether it is to end; requests and leases must not wait for that.
        await asyncio.to_thread(_end, server, thread)


def _end(server: WSGIServer, thread: Thread) -> None:
    server.shutdown()
    server.server_close()
    thread.join()


def _registry() -> CollectorRegistry:
    if FOLDER not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


async def _sample(engine: AsyncEngine) -> None:
    lag = catalogue.LOOP_LAG_SECONDS.of()
    used, size = catalogue.POOL_USED.of(), catalogue.POOL_SIZE.of()
    pool = engine.sync_engine.pool
    assert isinstance(pool, QueuePool)
    clock = asyncio.get_running_loop().time
    while True:
        asked = clock()
        await asyncio.sleep(SAMPLE_SECONDS)
        lag.observe(max(0.0, clock() - asked - SAMPLE_SECONDS))
        used.set(pool.checkedout())
        size.set(pool.size())
