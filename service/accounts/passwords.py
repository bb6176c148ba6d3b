"""How passwords are kept: argon2id in one thread beside the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from service.errors import Busy, BusyReason
from service.observability.metrics import catalogue

PASSWORD_BYTES_MAX = 1_024

T = TypeVar("T")


class Passwords:
    """argon2id, off the event loop in one thread, with a bounded queue.

    One thread, because a hash takes a core for tens of milliseconds and the other requests want theirs.
    """

    def __init__(self, queue_max: int) -> None:
        self._hasher = PasswordHasher()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="argon2")
        self._queue_max = queue_max
        self._waiting = 0
        # Shown at 0 from the start: that nobody waits is not the same as that nobody knows.
        self._shown = catalogue.PASSWORDS_WAITING.of()
        # What a password for an unknown address is compared with, so that it takes as long.
        self._nobodys = self._hasher.hash("nobody's password")

    async def hash(self, password: str) -> str:
        """The hash to store. Raises Busy where too many wait."""
        return await self._run(lambda: self._hasher.hash(password))

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Whether it is the password; never for None, after the same time. Raises Busy where too many wait."""
        return await self._run(lambda: self._verify(password, password_hash))

    def close(self) -> None:
        """Ends the thread after the hash at hand."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _verify(self, password: str, password_hash: str | None) -> bool:
        try:
            self._hasher.verify(password_hash or self._nobodys, password)
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
