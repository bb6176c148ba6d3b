"""Hashes and checks passwords: argon2id, in one thread beside the event loop."""

import asyncio
import os
import sys
import threading
import time
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from service.accounts.turns import Asker, FairTurns
from service.observability.metrics import catalogue

PASSWORD_BYTES_MAX = 1_024
NICENESS = 10
LEAKED = """
12345678 123456789 1234567890 87654321 987654321 123123123 12341234 11223344 1234qwer 1q2w3e4r 1qaz2wsx q1w2e3r4
qwer1234 qwerty12 qwerty123 qwertyuiop asdf1234 asdfghjkl zaq12wsx abc12345 abcd1234 abc123456 a1234567 aa123456
password password1 password12 password123 passw0rd p@ssword p@ssw0rd iloveyou sunshine princess football baseball
superman trustno1 starwars whatever computer internet michelle jennifer liverpool corvette mercedes welcome1
letmein1 admin123 changeme football1 baseball1 princess1 sunshine1 iloveyou1 dragon123 monkey123 master123
"""
COMMON = frozenset(LEAKED.split())
"""Of lists of leaked passwords, those that are long enough."""

T = TypeVar("T")


class Passwords:
    """A thread for argon2id, with a bounded queue that is fair by address (`turns`).

    One thread, because a hash takes a core for tens of milliseconds, and the other requests need a core too. The thread
    gives way to them, and to PostgreSQL on the same machine.
    """

    def __init__(self, queue_max: int) -> None:
        # The library's four lanes would be four threads.
        self._hasher = PasswordHasher(parallelism=1)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="argon2", initializer=_give_way)
        self._turns = FairTurns(queue_max)
        # So that the gauge shows 0 from the start: a missing value would mean that the number is unknown.
        self._shown = catalogue.PASSWORDS_WAITING.of()
        # A password for an unknown address is compared with this hash, so that the check takes as long.
        self._decoy = self._hasher.hash("of an account that does not exist")

    async def hash(self, password: str, asker: Asker) -> str:
        """The hash to store. Raises Busy where too many passwords wait."""
        return await self._run(asker, lambda: self._hasher.hash(prepared(password)))

    async def verify(self, password: str, password_hash: str | None, asker: Asker) -> bool:
        """Whether the password has this hash. For None it is False, after the same time.

        Raises Busy where too many passwords wait.
        """
        return await self._run(asker, lambda: self._verify(password, password_hash))

    def close(self) -> None:
        """Stops the thread after its current hash."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _verify(self, password: str, password_hash: str | None) -> bool:
        # Hashes of before this preparation are of the password as it was typed.
        tried = dict.fromkeys((prepared(password), password))
        return any(self._fits(form, password_hash) for form in tried)

    def _fits(self, password: str, password_hash: str | None) -> bool:
        try:
            self._hasher.verify(password_hash or self._decoy, password)
        except (VerificationError, InvalidHashError):
            return False
        return password_hash is not None

    async def _run(self, asker: Asker, work: Callable[[], T]) -> T:
        began = time.perf_counter()
        with self._shown.track_inprogress():
            await self._turns.take(asker)
            try:
                return await asyncio.get_running_loop().run_in_executor(self._pool, work)
            finally:
                self._turns.give_back()
                catalogue.PASSWORD_SECONDS.of().observe(time.perf_counter() - began)


def prepared(password: str) -> str:
    """One form of passwords that look the same: OpaqueString of RFC 8265, which keeps upper and lower case."""
    spaced = "".join(" " if unicodedata.category(character) == "Zs" else character for character in password)
    return unicodedata.normalize("NFC", spaced)


def weakness(password: str) -> str | None:
    """Why the password must not be used for a new account. There are no rules of composition."""
    if any(unicodedata.category(character) == "Cc" for character in password):
        return "must not have control characters"
    if len(set(prepared(password))) == 1:
        return "must not be one character repeated"
    if password.casefold() in COMMON:
        return "is one of the commonest passwords"
    return None


def _give_way() -> None:
    """Lowers the priority of the calling thread alone, which Linux allows."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))
