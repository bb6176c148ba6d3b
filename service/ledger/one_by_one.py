"""The rule for a list whose members share a transaction: together, then one by one.

A transaction fails as a whole. Where the reason is one member, such as its row lock or its data, each member gets a
transaction of its own, so that its neighbours are answered. Where the reason concerns all members, such as an
unavailable PostgreSQL, more transactions would not help.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

from service.errors import concerns_all

M = TypeVar("M")
A = TypeVar("A")
T = TypeVar("T")

ONE_BY_ONE_SECONDS_MAX = 5
"""Each member may wait for its lock, and a loop must finish its step to be seen alive. The rest comes with the next."""


async def together_then_one_by_one(
    together: Callable[[], Awaitable[T]],
    one_by_one: Callable[[Exception], Awaitable[T]],
    must_raise: Callable[[Exception], bool] = concerns_all,
) -> T:
    """The result of `together`. Where that fails and the error is not one that `must_raise`, that of `one_by_one`."""
    try:
        return await together()
    except Exception as error:
        if must_raise(error):
            raise
        failure = error
    return await one_by_one(failure)


async def in_turn(
    members: Iterable[M],
    alone: Callable[[M], Awaitable[A]],
    deadline: float,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[tuple[M, A | Exception]]:
    """Each member with its own answer or error, until the deadline. Raises an error that concerns all."""
    for member in members:
        if clock() > deadline:
            return
        answer = await _answer(alone, member)
        if isinstance(answer, Exception) and concerns_all(answer):
            raise answer
        yield member, answer


async def at_once(members: Iterable[M], alone: Callable[[M], Awaitable[A]]) -> list[A | Exception]:
    """The answer or error of each member, in their order. All together wait no longer than one for its lock."""
    return list(await asyncio.gather(*(_answer(alone, member) for member in members)))


async def _answer(alone: Callable[[M], Awaitable[A]], member: M) -> A | Exception:
    try:
        return await alone(member)
    except Exception as error:  # noqa: BLE001 - the caller raises it, or reports it
        return error
