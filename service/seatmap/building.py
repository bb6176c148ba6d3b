"""Builds a seat map in Redis: one builder at a time, under a lock, and with a token that stops a late builder."""

import secrets
from collections.abc import Sequence

from service.cache import Cache
from service.observability.metrics import catalogue
from service.seatmap.encoding import Change, Freshness, flat, parts
from service.seatmap.keys import APPLY, BEGIN, FINISH, UNLOCK, key, keys, run_script
from service.seatmap.stored import Layout, SeatReads

BUILD_LOCK_MS = 10_000


class MapBuilder:
    """One per process. Every method raises CacheAway."""

    def __init__(self, cache: Cache, keep_minutes: int) -> None:
        self._cache = cache
        self._keep_ms = keep_minutes * 60_000

    async def try_lock(self, epoch: str, session_id: int, token: str, lock_ms: int) -> bool:
        """Whether this builder has the lock now. The lock expires after `lock_ms`."""
        name = key(epoch, session_id, "lock")
        return bool(await self._cache.run(lambda redis: redis.set(name, token, nx=True, px=lock_ms)))

    async def begin(self, epoch: str, session_id: int, seat_count: int, token: str, ends_at_ms: int) -> bool:
        """Creates an incomplete map, which expires when its showing ends; False where a complete map exists."""
        names = keys(epoch, session_id)
        return bool(await run_script(self._cache, BEGIN, names, seat_count, token, self._keep_ms, ends_at_ms))

    async def fill(self, epoch: str, session_id: int, changes: Sequence[Change], token: str) -> bool:
        """Writes the seats that the builder has read; False where another builder has taken over."""
        for part in parts(changes):
            if await run_script(self._cache, APPLY, keys(epoch, session_id), token, *flat(part)) < 0:
                return False
        return True

    async def finish(self, epoch: str, session_id: int, token: str) -> bool:
        """Marks the map as complete, so that it is read; False where another builder has taken over."""
        states, _, meta = keys(epoch, session_id)
        return bool(await run_script(self._cache, FINISH, [states, meta], token))

    async def unlock(self, epoch: str, session_id: int, token: str) -> None:
        """Releases the lock if it is still this builder's."""
        await run_script(self._cache, UNLOCK, [key(epoch, session_id, "lock")], token)


async def build(builder: MapBuilder, reads: SeatReads, freshness: Freshness, layout: Layout, session_id: int) -> bool:
    """Builds the map from PostgreSQL; False where another builder has the lock.

    Raises CacheAway, and what `reads` raises.
    """
    epoch, token = freshness.epoch, secrets.token_hex(8)
    if not await builder.try_lock(epoch, session_id, token, BUILD_LOCK_MS):
        return False
    outcome = "abandoned"
    try:
        # The map is created before the read. In the other order a change between the two would be lost.
        if await builder.begin(epoch, session_id, len(layout.seat_ids), token, layout.ends_at_ms):
            history, changes = await reads.changed(session_id)
            is_same = history == layout.history == freshness.history
            if is_same and await builder.fill(epoch, session_id, changes, token):
                await builder.finish(epoch, session_id, token)
                outcome = "built"
    finally:
        catalogue.MAP_BUILDS.of(outcome).inc()
        await builder.unlock(epoch, session_id, token)
    return True
