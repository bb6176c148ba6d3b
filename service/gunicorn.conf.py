"""How gunicorn runs the API: `gunicorn --config service/gunicorn.conf.py`. One worker: replicas are pods."""

import gc
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from gunicorn.config import Config
from gunicorn.glogging import Logger
from uvicorn_worker import UvicornWorker

from service import settings
from service.errors import NotReady
from service.hosts import authority
from service.observability import logs

try:
    _settings = settings.load()
except NotReady as error:
    sys.exit(f"rowlock: {error}")

logs.configure_logging(_settings.log_level, _settings.log_format)


class Worker(UvicornWorker):  # type: ignore[misc]  # uvicorn-worker has no types
    """The stock worker waits for open streams without end, and never comes to the lifespan's shutdown."""

    CONFIG_KWARGS = {  # noqa: RUF012 - as the stock worker declares it
        "loop": "uvloop",
        "http": "httptools",
        "timeout_graceful_shutdown": _settings.shutdown_seconds,
        # Addresses in headers count only where the service itself trusts who sets them.
        "proxy_headers": False,
        "server_header": False,
        "access_log": False,
    }


class Log(Logger):
    """Leaves gunicorn's lines to the handler that all lines go to."""

    def setup(self, cfg: Config) -> None:
        super().setup(cfg)
        self.error_log.handlers = []
        self.error_log.propagate = True


METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


def on_starting(server: Any) -> None:
    """Several workers show their metrics as one, through files: each would have its own otherwise."""
    if server.cfg.workers > 1:
        os.environ[METRICS_FOLDER] = tempfile.mkdtemp(prefix="rowlock-metrics-")


def post_worker_init(_worker: Any) -> None:
    """What is there now stays as long as the worker. The collector would look through all of it again and again, for
    as long as several requests take, and nobody is answered meanwhile.
    """
    gc.collect()
    gc.freeze()


def child_exit(_server: Any, worker: Any) -> None:
    """What a worker had in use is not in use any more."""
    if METRICS_FOLDER in os.environ:
        # The library decides when it is imported whether it uses the files.
        from prometheus_client import multiprocess  # noqa: PLC0415

        multiprocess.mark_process_dead(worker.pid)


def on_exit(_server: Any) -> None:
    """Leaves nothing behind."""
    if METRICS_FOLDER in os.environ:
        shutil.rmtree(os.environ[METRICS_FOLDER], ignore_errors=True)


logger_class = Log
wsgi_app = "service.app:create_app()"
worker_class = Worker
workers = 1
bind = authority(_settings.host, _settings.port)
# After the worker's own time for the requests, some for the writes and the lifespan's end.
graceful_timeout = _settings.shutdown_seconds + 10
# A worker whose event loop says nothing for so long is replaced.
timeout = 30
keepalive = 75
# The workers' heartbeat is a file: in memory, where also a container with a read-only root may write.
_memory = Path("/dev/shm")  # noqa: S108 - no name in it is made up here
worker_tmp_dir = str(_memory) if _memory.is_dir() else None
control_socket_disable = True
