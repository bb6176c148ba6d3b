"""Reads the seat maps in Redis, and how fresh all of them are."""

from collections.abc import Callable, Sequence
from typing import NoReturn

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import ResponseError

from service.cache import Cache
from service.errors import CacheAway
from service.seatmap.encoding import (
    DAMAGED,
    Answer,
    Counts,
    Damaged,
    Freshness,
    Kept,
    counts_of,
    freshness_of,
    kept_of,
    milliseconds_of,
    states_of,
)
from service.seatmap.keys import WATERMARK, key, keys

log = structlog.stdlib.get_logger("rowlock.seatmap")


class SeatCache:
    """One per process. Every method raises CacheAway."""

    def __init__(self, cache: Cache, fresh_ms: int) -> None:
        self._cache = cache
        self._fresh_ms = fresh_ms
        self._epoch = ""

    async def read(self, session_id: int) -> tuple[Freshness | None, bytes | None]:
        """How fresh the maps are, None where none is; and the states of a complete map, None where there is none.

        A damaged map is forgotten, and raises CacheAway.
        """
        freshness, (answer,) = await self._read(1, lambda pipe, epoch: pipe.get(key(epoch, session_id, "states")))
        states = states_of(answer)
        if freshness is not None and isinstance(states, Damaged):
            await self.forget_damaged(freshness.epoch, session_id)
        return freshness, None if isinstance(states, Damaged) else states

    async def read_freshness(self) -> Freshness | None:
        """How fresh all maps are; None where none is fresh."""
        freshness, _ = await self._read(0, lambda _pipe, _epoch: None)
        return freshness

    async def read_counts(self, session_ids: Sequence[int]) -> dict[int, Counts]:
        """The counts of the sessions that have a complete and fresh map."""
        found = await self.read_fresh_counts(session_ids) or {}
        return {session_id: counts for session_id, counts in found.items() if isinstance(counts, Counts)}

    async def read_fresh_counts(self, session_ids: Sequence[int]) -> dict[int, Counts | Damaged] | None:
        """As `read_counts`, with the damaged maps. None where no map is fresh: then it is unknown which maps exist."""

        def ask(pipe: Pipeline, epoch: str) -> None:
            for session_id in session_ids:
                pipe.getrange(key(epoch, session_id, "states"), 0, 0)
                pipe.hmget(key(epoch, session_id, "meta"), "held", "sold")

        freshness, answers = await self._read(2 * len(session_ids), ask)
        if freshness is None:
            return None
        counts = map(counts_of, answers[::2], answers[1::2])
        return {session_id: found for session_id, found in zip(session_ids, counts, strict=True) if found is not None}

    async def read_whole(self, session_id: int) -> tuple[Freshness | None, Kept | None]:
        """How fresh the maps are, None where none is; and a complete map, None where a part of it is missing. A damaged
        map is DAMAGED_MAP.
        """

        def ask(pipe: Pipeline, epoch: str) -> None:
            pipe.get(key(epoch, session_id, "states"))
            pipe.get(key(epoch, session_id, "versions"))
            pipe.hmget(key(epoch, session_id, "meta"), "held", "sold")

        freshness, answers = await self._read(3, ask)
        return freshness, kept_of(*answers)

    async def forget_damaged(self, epoch: str, session_id: int) -> NoReturn:
        """Deletes the map, and raises CacheAway: this reader gets PostgreSQL's."""
        log.warning("seat map deleted: it is damaged", session_id=session_id)
        await self.forget(epoch, session_id)
        raise CacheAway("the map was damaged")

    async def forget(self, epoch: str, session_id: int) -> None:
        """Deletes the map; its next reader builds it again."""
        await self._cache.run(lambda redis: redis.delete(*keys(epoch, session_id)))

    async def _read(
        self, size: int, ask: Callable[[Pipeline, str], object]
    ) -> tuple[Freshness | None, Sequence[Answer]]:
        """The freshness, and the `size` answers to what `ask` puts into the pipeline for the current epoch; all of them
        None where no map is fresh.
        """
        # The epoch is known from the read before. Where it has changed since, this read asks once more.
        for _ in range(2):
            asked_for = self._epoch
            freshness, answers = await self._read_in(asked_for, ask)
            # The projector may have another setting for the longest age, so the age is compared with this process's.
            if freshness is None or not 0 <= freshness.age_ms <= self._fresh_ms:
                break
            self._epoch = freshness.epoch
            if freshness.epoch == asked_for:
                return freshness, answers
        return None, [None] * size

    async def _read_in(
        self, epoch: str, ask: Callable[[Pipeline, str], object]
    ) -> tuple[Freshness | None, list[Answer]]:
        """The freshness by the watermark, and the answers for this epoch, at the same moment."""

        async def work(redis: "Redis") -> tuple[Freshness | None, list[Answer]]:
            pipe = redis.pipeline(transaction=True)
            pipe.time()
            pipe.get(WATERMARK)
            ask(pipe, epoch)
            now, *answers = await pipe.execute(raise_on_error=False)
            if isinstance(now, Exception):
                raise now
            mark, *asked = map(_or_damaged, answers)
            return freshness_of(mark, milliseconds_of(now)), asked

        return await self._cache.run(work)


def _or_damaged(answer: Answer | Exception) -> Answer:
    if isinstance(answer, ResponseError) and str(answer).startswith("WRONGTYPE"):
        return DAMAGED
    if isinstance(answer, Exception):
        raise answer
    return answer
