"""Refuses holds beyond the queue before they are parsed, so that an overload leaves the time for those in the queue.

A refusal by the whole way through the API costs about half of a hold. At twice the capacity refusals alone would fill
the process, and the lists of holds, which share its loop, would wait for them. Here a refusal costs a tenth. It asks
neither for the token nor for limits, and many refusals share a log line. A request that is unusual in any way, or comes
in parts, takes the whole way.
"""

import re
import time
from dataclasses import dataclass

import orjson
import structlog

from service.errors import Busy, SessionBusy
from service.observability.metrics import recording

START = b"POST /customer/book"
START_OF_ONE = START + b"/"
FIRST_LINE = re.compile(rb"POST /customer/book(?:/(\d{1,18}))? HTTP/1\.1\r\n")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d{1,9})\r\n", re.IGNORECASE)
UNUSUAL = re.compile(rb"\r\n(?:transfer-encoding|expect|upgrade|connection(?!: *keep-alive\r\n)):", re.IGNORECASE)
END = b"\r\n\r\n"
LOG_SECONDS = 10.0

log = structlog.stdlib.get_logger("rowlock.http")


@dataclass(slots=True)
class Refusals:
    """Those of a process since the last log line. Times are monotonic seconds."""

    count: int = 0
    logged_at: float = -LOG_SECONDS

    def note(self, data: bytes, error: Busy | SessionBusy) -> None:
        """Counts a refusal of this request, and writes a line now and then."""
        is_one = data.startswith(START_OF_ONE)
        recording.hold_refused_unread("/customer/book/{seatId}" if is_one else "/customer/book", error)
        self.count += 1
        now = time.monotonic()
        if now - self.logged_at >= LOG_SECONDS:
            log.warning("holds refused unread", count=self.count, error=repr(error))
            self.count, self.logged_at = 0, now


refusals = Refusals()


def first_seat(data: bytes) -> int | None:
    """The smallest seat that a whole and usual request wants, else None."""
    line = FIRST_LINE.match(data)
    first, end, body = data.partition(END)
    head = first + b"\r\n"
    if not line or not end or UNUSUAL.search(head):
        return None
    length = LENGTH.search(head)
    if len(body) != (int(length[1]) if length else 0):
        return None
    if line[1]:
        return int(line[1]) if not body else None
    try:
        return int(min(orjson.loads(body)["seatIds"]))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None
