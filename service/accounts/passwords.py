"""Hashes and checks passwords: argon2id, in one thread beside the event loop."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from service.errors import Busy, BusyReason
from service.observability.metrics import catalogue

PASSWORD_BYTES_MAX = 1_024
NICENESS = 10

T = TypeVar("T")


class Passwords:
    """A thread for argon2id, with a bounded queue.

    One thread, because a hash takes a core for tens of milliseconds, and the other requests need a core too. The thread
    gives way to them, and to PostgreSQL on the same machine.
    """

    def __init__(self, queue_max: int) -> None:
        # The library's four lanes would be four threads.
        self._hasher = PasswordHasher(parallelism=1)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="argon2", initializer=_give_way)
        self._queue_max = queue_max
        self._waiting = 0
        # So that the gauge shows 0 from the start: a missing value would mean that the number is unknown.
        self._shown = catalogue.PASSWORDS_WAITING.of()
        # A password for an unknown address is compared with this hash, so that the check takes as long.
        self._decoy = self._hasher.hash("of an account that does not exist")

    async def hash(self, password: str) -> str:
        """The hash to store. Raises Busy where too many passwords wait."""
        return await self._run(lambda: self._hasher.hash(password))

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Whether the password has this hash. For None it is False, after the same time.

        Raises Busy where too many passwords wait.
        """
        return await self._run(lambda: self._verify(password, password_hash))

    def close(self) -> None:
        """Stops the thread after its current hash."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _verify(self, password: str, password_hash: str | None) -> bool:
        try:
            self._hasher.verify(password_hash or self._decoy, password)
        except (VerificationError, InvalidHashError):
            return False
        return password_hash is not None

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= self._queue_max:
            raise Busy(BusyReason.HASH_QUEUE)
        self._waiting += 1
        try:
            with self._shown.track_inprogress(), catalogue.PASSWORD_SECONDS.of().time():
                return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._waiting -= 1


def _give_way() -> None:
    """Lowers the priority of the calling thread alone, which Linux allows."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))
