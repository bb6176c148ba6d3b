"""Where the calls to RabbitMQ block without holding up the loops."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

T = TypeVar("T")


class Thread:
    """One thread, since each of `service.broker`'s objects is for one; calls are done in their order."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, name)

    async def run(self, call: Callable[..., T], *arguments: Any) -> T:
        """Its result. The call knows whether a transaction is open here."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, copy_context().run, call, *arguments)

    def close(self) -> None:
        """Returns when the call at hand has."""
        self._pool.shutdown()
