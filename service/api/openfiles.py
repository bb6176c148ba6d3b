"""Reports that the process can't open another file. Each connection is one, and without a file left the event loop
(libuv) closes new ones without a word.
"""

import errno
import os
import resource

import structlog

from service.observability.failures import Failures

NO_FILES_LEFT = {errno.EMFILE, errno.ENFILE}

failures = Failures()
log = structlog.stdlib.get_logger("rowlock.api")


def check(now: float) -> None:
    """Logs at once that no file can be opened, then once a minute, and when it is over. `now` is monotonic."""
    if _can_open():
        if facts := failures.end(now):
            log.info("connections are accepted again", **facts)
    elif facts := failures.note("accept", now):
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        remedy = "raise the limit of open files (ulimit -n) or lower ROWLOCK_IDLE_SECONDS"
        log.error("new connections are closed: too many open files", limit=limit, remedy=remedy, **facts)


def _can_open() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno not in NO_FILES_LEFT
    return True
