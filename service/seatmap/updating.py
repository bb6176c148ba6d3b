"""The projector's writes to Redis: changes of seats, how far in the log the maps are, and how fresh they are."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial

import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from service.cache import Cache
from service.seatmap.encoding import Call, Change, Clock, flat, microseconds_of, milliseconds_of, pipelines, place_of
from service.seatmap.keys import APPLY, BUMP, CLOCK, PLACE, RENEW, WATERMARK, keys, run_script

log = structlog.stdlib.get_logger("rowlock.seatmap")


class MapUpdates:
    """One per projector. Every method raises CacheAway."""

    def __init__(self, cache: Cache, fresh_ms: int) -> None:
        self._cache = cache
        self._fresh_ms = fresh_ms

    async def clock(self) -> Clock:
        """Redis's time, run and place. Without a valid operator's counter no map can be trusted."""
        return await self._cache.run(_read_clock)

    async def apply(self, epoch: str, changes: dict[int, list[Change]]) -> None:
        """Writes the changes, by session, to the maps that exist. A map that rejects them is deleted, so that the other
        maps are not delayed; its next reader builds it again.
        """
        for calls in pipelines(changes):
            await self._cache.run(partial(_apply, epoch, calls))

    async def note_place(self, epoch: str, number: int) -> None:
        """Records that the log's changes up to `number` are in the maps."""
        await self._cache.run(lambda redis: redis.set(PLACE, f"{epoch}|{number}"))

    async def begin_epoch(self) -> None:
        """Begins a new epoch; the maps of the old one are never read again and expire."""
        await self._cache.run(lambda redis: redis.incr(BUMP))

    async def renew(self, epoch: str, as_of: datetime, began_ms: int) -> bool:
        """Records that everything committed at `as_of` is in the maps. `began_ms` is Redis's time when the step began.

        False where the step took longer than a map may be old, or another projector has recorded a later moment.
        """
        until_ms = began_ms + self._fresh_ms
        return bool(
            await run_script(self._cache, RENEW, [WATERMARK], epoch, began_ms, microseconds_of(as_of), until_ms)
        )


async def _read_clock(redis: "Redis") -> Clock:
    # In a script, because the driver takes longer to read the whole INFO than Redis to make it.
    seconds, microseconds, run_id, bump, place = await redis.eval(CLOCK, 2, BUMP, PLACE)
    try:
        run = f"{run_id.decode()}-{int(bump or 0)}"
    except ValueError as error:
        raise ResponseError(f"{BUMP} is not a number") from error
    return Clock(milliseconds_of((seconds, microseconds)), run, *place_of(place))


async def _apply(epoch: str, calls: Sequence[Call], redis: "Redis") -> None:
    pipe = redis.pipeline(transaction=False)
    for session_id, part in calls:
        pipe.eval(APPLY, 3, *keys(epoch, session_id), "", *flat(part))
    results = await pipe.execute(raise_on_error=False)
    for (session_id, _), result in zip(calls, results, strict=True):
        if isinstance(result, Exception):
            log.warning("seat map deleted: it rejected changes", session_id=session_id, error=str(result))
            await redis.delete(*keys(epoch, session_id))
