"""gunicorn's configuration for the API: `gunicorn --config service/gunicorn.conf.py`. One worker: replicas are pods."""

import gc
import os
import resource
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from uvicorn_worker import UvicornWorker

from service import settings
from service.errors import NotReady
from service.hosts import authority
from service.observability import logs
from service.settings.unknown import warn_of_unknown

try:
    _settings = settings.load()
except NotReady as error:
    sys.exit(f"rowlock: {error}")

logs.configure_logging(_settings.log_level, _settings.log_format)
warn_of_unknown()


class Worker(UvicornWorker):  # type: ignore[misc]  # uvicorn-worker has no types
    """uvicorn's worker with a limited wait for open streams: without a limit the lifespan's shutdown never runs."""

    CONFIG_KWARGS = {  # noqa: RUF012 - as the stock worker declares it
        "loop": "uvloop",
        # By name: the metrics must not be imported before `on_starting`.
        "http": "service.api.protocol:Protocol",
        "timeout_graceful_shutdown": _settings.shutdown_seconds,
        # The service itself decides which proxies it trusts for `X-Forwarded-For`.
        "proxy_headers": False,
        "server_header": False,
        "access_log": False,
    }

    async def _serve(self) -> None:
        # As in the stock worker, with our server. It is imported here for the same reason as `http`.
        from service.api.server import Server  # noqa: PLC0415

        self.config.app = self.wsgi
        server = Server(self.config)
        self._install_sigquit_handler()
        await server.serve(self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


class Log(Logger):
    """Sends gunicorn's log lines to the handler of all log lines."""

    def setup(self, cfg: Config) -> None:
        super().setup(cfg)
        self.error_log.handlers = []
        self.error_log.propagate = True


METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


def on_starting(server: Any) -> None:
    """Allows as many open files as the system does, since each connection is one.

    With several workers, their metrics are added up through files; otherwise each worker would report its own.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if server.cfg.workers > 1:
        os.environ[METRICS_FOLDER] = tempfile.mkdtemp(prefix="rowlock-metrics-")


def post_worker_init(_worker: Any) -> None:
    """Objects made so far live as long as the worker. Without `freeze` the garbage collector would scan them again and
    again, each time for as long as several requests take, and no request is answered meanwhile.
    """
    gc.collect()
    gc.freeze()


def child_exit(_server: Any, worker: Any) -> None:
    """Removes the worker's gauges from the metrics."""
    if METRICS_FOLDER in os.environ:
        # The library decides at import whether it uses the files.
        from prometheus_client import multiprocess  # noqa: PLC0415

        multiprocess.mark_process_dead(worker.pid)


def on_exit(_server: Any) -> None:
    """Removes the folder of metrics."""
    if METRICS_FOLDER in os.environ:
        shutil.rmtree(os.environ[METRICS_FOLDER], ignore_errors=True)


logger_class = Log
wsgi_app = "service.app:create_app()"
worker_class = Worker
workers = 1
bind = authority(_settings.host, _settings.port)
# The worker's own time for requests, then 10 s for writes in progress and the lifespan's shutdown.
graceful_timeout = _settings.shutdown_seconds + 10
# A worker whose event loop is silent for this many seconds is replaced.
timeout = 30
keepalive = _settings.idle_seconds
# The workers' heartbeat is a file. A container with a read-only root can write to memory.
_memory = Path("/dev/shm")  # noqa: S108 - only the folder is named here
worker_tmp_dir = str(_memory) if _memory.is_dir() else None
control_socket_disable = True
