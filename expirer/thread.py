"""A thread for the blocking calls to RabbitMQ, so that they delay no loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

T = TypeVar("T")


class Thread:
    """One thread, because each object of `service.broker` is for one. It runs the calls in their order."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, name)

    async def run(self, call: Callable[..., T], *arguments: Any) -> T:
        """The result of the call, which runs in the caller's context."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, copy_context().run, call, *arguments)

    def close(self) -> None:
        """Returns when the current call has returned."""
        self._pool.shutdown()
