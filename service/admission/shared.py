"""Counts that all replicas share through Redis, most of them without a trip for the request.

A process admits a few requests of a key before Redis knows of them: AHEAD_SHARE of the limit. Beyond half of them it
reports the key with others in the background, within SETTLE_SECONDS, and learns what other processes counted. A request
that would exceed the share asks Redis and waits. So all processes together admit at least the limit, and for each
process at most AHEAD_SHARE of it more. A limit whose share is less than one request is exact.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path

from service.admission.windows import WINDOW_SECONDS, Count, Limit, weight
from service.cache import Cache
from service.errors import CacheAway

AHEAD_SHARE = 0.02
SETTLE_SECONDS = 0.25
KEYS_AT_ONCE_MAX = 500
"""Keys in one trip to Redis. They take it about 2 ms."""
FORGET_SECONDS = 2 * WINDOW_SECONDS + 10

COUNT = (Path(__file__).parent / "lua" / "count.lua").read_text()


@dataclass(frozen=True, slots=True)
class _Entry:
    limit: Limit
    who: str
    count: Count

    def names(self) -> list[str]:
        """The keys of its windows in Redis."""
        return [f"rowlock:limits:{self.limit.name}:{self.who}:{self.count.window - n}" for n in (0, 1)]


class SharedCounts:
    """One per process. Redis has two keys for each key of a limit, which it forgets after FORGET_SECONDS."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._unsettled: dict[int, _Entry] = {}
        self._settling: asyncio.Task[None] | None = None

    async def hit(self, limit: Limit, who: str, now: float) -> float | None:
        """Counts a request if it is admitted. Returns the seconds until it will be, otherwise. Raises CacheAway."""
        count = limit.shared.count(who, now)
        if limit.ahead:
            if wait := count.seconds_to_wait(limit.amount, now):
                return wait
            if count.own < limit.ahead:
                count.own += 1
                if 2 * (count.own - count.sent) > limit.ahead:
                    self._settle_soon(_Entry(limit, who, count))
                return None
        (admitted,) = await self._report([_Entry(limit, who, count)], weight(now - count.window * WINDOW_SECONDS))
        return None if admitted else count.seconds_to_wait(limit.amount, now) or 0.0

    async def close(self) -> None:
        """Ends the work in the background. Requests that are not reported yet are lost, as in a crash."""
        if self._settling:
            self._settling.cancel()
            await asyncio.wait([self._settling])

    def _settle_soon(self, entry: _Entry) -> None:
        self._unsettled[id(entry.count)] = entry
        if self._settling is None or self._settling.done():
            # Without the context of the request, such as its id in the log.
            self._settling = asyncio.create_task(self._settle(), context=Context())

    async def _settle(self) -> None:
        while self._unsettled:
            await asyncio.sleep(SETTLE_SECONDS)
            entries = list(self._unsettled.values())
            self._unsettled.clear()
            # While Redis is down the next request of each key tries again.
            with suppress(CacheAway):
                for n in range(0, len(entries), KEYS_AT_ONCE_MAX):
                    await self._report(entries[n : n + KEYS_AT_ONCE_MAX], -1)

    async def _report(self, entries: Sequence[_Entry], part: float) -> list[bool]:
        """Reports this process's requests, and reads those of all. Returns whether a further request is admitted.

        `part` is the weight of the window before; it is negative where no further request asks.
        """
        names = [name for entry in entries for name in entry.names()]
        numbers = [entry.count.own - entry.count.sent for entry in entries]
        arguments = [str(FORGET_SECONDS), repr(part)]
        for entry, number in zip(entries, numbers, strict=True):
            entry.count.sent += number
            arguments += [str(number), str(entry.limit.amount)]
        try:
            answers = await self._cache.run(lambda redis: redis.eval(COUNT, len(names), *names, *arguments))
        except BaseException:
            for entry, number in zip(entries, numbers, strict=True):
                entry.count.sent -= number
            raise
        for entry, number, (total, before, _) in zip(entries, numbers, answers, strict=True):
            entry.count.settle(number, total, before)
        return [bool(admitted) for _, _, admitted in answers]
