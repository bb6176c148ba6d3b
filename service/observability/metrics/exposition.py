"""The port on which Prometheus reads a process's metrics, and the values that are sampled twice a second.

Several workers of one gunicorn share a folder of files (`PROMETHEUS_MULTIPROC_DIR`, see `gunicorn.conf.py`): the worker
that has the port answers for all. It answers from a thread, so it does even while the event loop is stuck.
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
"""A worker that replaces another one gets the port as soon as the old worker has ended."""

log = structlog.stdlib.get_logger("rowlock.metrics")


@asynccontextmanager
async def exposed(process: Process, version: str, host: str, port: int, engine: AsyncEngine) -> AsyncIterator[None]:
    """Answers on the port during the block; 0 switches it off. A port that is in use does not stop the process."""
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
    is_logged = False
    while server is None:
        try:
            server, thread = start_http_server(port, host, _registry())
        except OSError as error:
            if not is_logged:
                log.warning("the metrics port is not free yet", port=port, error=repr(error))
            is_logged = True
            await asyncio.sleep(PORT_RETRY_SECONDS)
    try:
        await asyncio.Event().wait()
    finally:
        # The server notices its shutdown within half a second. Requests and leases must not wait for that.
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
