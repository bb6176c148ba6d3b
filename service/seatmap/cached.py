"""The seat maps in Redis: one byte a seat, a version a seat, and how fresh all of them are.

A map is three keys: `states` (a flag, B while it is built and C when it is complete, then A, H or S for each seat by
position), `versions` (four bytes a seat, big-endian) and `meta` (the builder's token, counts of held and sold seats).
Their names carry an epoch: in another one the versions mean nothing. The watermark names the epoch that counts. It
begins with PostgreSQL's part, which `service.seatmap.stored` reads, and ends with Redis's: its run and an operator's
count.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from service.cache import Cache
from service.errors import CacheAway
from service.seatmap.encoding import (
    DAMAGED,
    DAMAGED_MAP,
    Call,
    Change,
    Clock,
    Freshness,
    Kept,
    counts_of,
    flat,
    freshness_of,
    microseconds_of,
    parts,
    pipelines,
    place_of,
)

WATERMARK = "rowlock:watermark:2"
"""Epoch, moment by Redis's clock and by PostgreSQL's. The number is its format's: the release before reads no other."""
BUMP = "rowlock:bump"
"""`INCR rowlock:bump` begins a new epoch, so that every map is built anew: after somebody has changed seats by hand."""
PLACE = "rowlock:place"
"""How far in the log the maps of an epoch are, at least."""

log = structlog.stdlib.get_logger("rowlock.seatcache")

BEGIN, APPLY, FINISH, UNLOCK, RENEW = (
    (Path(__file__).parent / "lua" / f"{name}.lua").read_text()
    for name in ("begin", "apply", "finish", "unlock", "renew")
)


class SeatCache:
    """One per process. Every method raises CacheAway."""

    def __init__(self, cache: Cache, fresh_ms: int, keep_minutes: int) -> None:
        self._cache = cache
        self._fresh_ms = fresh_ms
        self._keep_ms = keep_minutes * 60_000
        self._epoch = ""

    async def read(self, session_id: int) -> tuple[Freshness | None, bytes | None]:
        """How fresh, None where nothing is; and the states of a complete map, None where there is none."""
        freshness, (states,) = await self._read(lambda pipe, epoch: pipe.get(_key(epoch, session_id, "states")))
        if states is DAMAGED:
            raise CacheAway("the map is damaged")
        return freshness, states[1:] if states is not None and states[:1] == b"C" else None

    async def read_freshness(self) -> Freshness | None:
        """Of all maps; None where nothing is fresh."""
        freshness, _ = await self._read(lambda _pipe, _epoch: None)
        return freshness

    async def read_counts(self, session_ids: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Seats held and sold of the sessions that have a complete and fresh map."""
        found = await self.read_fresh_counts(session_ids) or {}
        return {session_id: counts for session_id, counts in found.items() if counts is not None}

    async def read_fresh_counts(self, session_ids: Sequence[int]) -> dict[int, tuple[int, int] | None] | None:
        """As `read_counts`, and None for a map that is damaged; None for all where no map is fresh, so that nobody can
        say which are there.
        """

        def ask(pipe: Any, epoch: str) -> None:
            for session_id in session_ids:
                pipe.getrange(_key(epoch, session_id, "states"), 0, 0)
                pipe.hmget(_key(epoch, session_id, "meta"), "held", "sold")

        freshness, answers = await self._read(ask)
        if freshness is None:
            return None
        return {
            session_id: None if flag is DAMAGED else counts_of(counts)
            for session_id, flag, counts in zip(session_ids, answers[::2], answers[1::2], strict=True)
            if DAMAGED in (flag, counts) or (flag == b"C" and None not in counts)
        }

    async def read_whole(self, session_id: int) -> tuple[Freshness | None, Kept | None]:
        """How fresh, None where nothing is; and a complete map, None where a part of it is missing. One that is damaged
        is DAMAGED_MAP.
        """

        def ask(pipe: Any, epoch: str) -> None:
            pipe.get(_key(epoch, session_id, "states"))
            pipe.get(_key(epoch, session_id, "versions"))
            pipe.hmget(_key(epoch, session_id, "meta"), "held", "sold")

        freshness, (states, versions, counts) = await self._read(ask)
        if DAMAGED in (states, versions, counts):
            return freshness, DAMAGED_MAP
        if freshness is None or states is None or states[:1] != b"C" or versions is None or None in counts:
            return freshness, None
        numbers = counts_of(counts)
        return freshness, DAMAGED_MAP if numbers is None else Kept(states[1:], versions, *numbers)

    async def forget(self, epoch: str, session_id: int) -> None:
        """Throws the map away: the next reader builds it anew."""
        await self._cache.run(lambda redis: redis.delete(*_keys(epoch, session_id)))

    async def begin(self, epoch: str, session_id: int, seat_count: int, token: str, ends_at_ms: int) -> bool:
        """Makes a map that is building, and ends with its showing; False where a complete one is there."""
        keys = _keys(epoch, session_id)
        return bool(await self._eval(BEGIN, keys, seat_count, token, self._keep_ms, ends_at_ms))

    async def fill(self, epoch: str, session_id: int, changes: Sequence[Change], token: str) -> bool:
        """Writes what the builder has read; False where somebody else builds by now."""
        for part in parts(changes):
            if await self._eval(APPLY, _keys(epoch, session_id), token, *flat(part)) < 0:
                return False
        return True

    async def finish(self, epoch: str, session_id: int, token: str) -> bool:
        """Lets readers use the map; False where somebody else builds by now."""
        states, _, meta = _keys(epoch, session_id)
        return bool(await self._eval(FINISH, [states, meta], token))

    async def apply(self, epoch: str, changes: dict[int, list[Change]]) -> None:
        """Brings the changes by session to the maps that are there. A map that can't take them is deleted: the others
        need not wait for it, and the next reader builds it anew.
        """
        for calls in pipelines(changes):
            await self._cache.run(partial(self._apply, epoch, calls))

    async def _apply(self, epoch: str, calls: Sequence[Call], redis: "Redis") -> None:
        pipe = redis.pipeline(transaction=False)
        for session_id, part in calls:
            pipe.eval(APPLY, 3, *_keys(epoch, session_id), "", *flat(part))
        results = await pipe.execute(raise_on_error=False)
        for (session_id, _), result in zip(calls, results, strict=True):
            if isinstance(result, Exception):
                log.warning("seat map deleted: it takes no changes", session_id=session_id, error=str(result))
                await redis.delete(*_keys(epoch, session_id))

    async def clock(self) -> Clock:
        """What Redis says of itself now. Without the operator's count nobody knows which maps are good."""

        async def work(redis: "Redis") -> Clock:
            pipe = redis.pipeline(transaction=False)
            pipe.time()
            pipe.info("server")
            # Of another kind it is an error by GET, and none by MGET, as for the place.
            pipe.get(BUMP)
            pipe.mget(PLACE)
            now, server, bump, (place,) = await pipe.execute()
            try:
                run = f"{server['run_id']}-{int(bump or 0)}"
            except ValueError as error:
                raise ResponseError(f"{BUMP} is no number") from error
            return Clock(_milliseconds(now), run, *place_of(place))

        return await self._cache.run(work)

    async def note_place(self, epoch: str, number: int) -> None:
        """Says that the log's changes up to the number are in the maps."""
        await self._cache.run(lambda redis: redis.set(PLACE, f"{epoch}|{number}"))

    async def begin_epoch(self) -> None:
        """Leaves all maps as they are, never to be read again."""
        await self._cache.run(lambda redis: redis.incr(BUMP))

    async def renew(self, epoch: str, as_of: datetime, began_ms: int) -> bool:
        """Says that everything committed at `as_of` is in the maps; `began_ms` is Redis's time when we began."""
        until_ms = began_ms + self._fresh_ms
        return bool(await self._eval(RENEW, [WATERMARK], epoch, began_ms, microseconds_of(as_of), until_ms))

    async def try_lock(self, epoch: str, session_id: int, token: str, lock_ms: int) -> bool:
        """Whether we are to build the map. The lock goes by itself; a late builder is stopped by its token."""

        async def work(redis: "Redis") -> bool:
            return bool(await redis.set(_key(epoch, session_id, "lock"), token, nx=True, px=lock_ms))

        return await self._cache.run(work)

    async def unlock(self, epoch: str, session_id: int, token: str) -> None:
        """Lets others build the map at once."""
        await self._eval(UNLOCK, [_key(epoch, session_id, "lock")], token)

    async def _read(self, ask: Any) -> tuple[Freshness | None, list[Any]]:
        """The freshness, and the answers to what `ask` puts into the pipeline for the epoch that counts."""
        for _ in range(2):
            asked_for = self._epoch

            async def work(redis: "Redis", epoch: str = asked_for) -> list[Any]:
                pipe = redis.pipeline(transaction=True)
                pipe.get(WATERMARK)
                pipe.time()
                ask(pipe, epoch)
                return list(map(_or_damaged, await pipe.execute(raise_on_error=False)))

            mark, now, *answers = await self._cache.run(work)
            # How long the projector lets it live says nothing of its age: the settings there may be others.
            freshness = freshness_of(mark, _milliseconds(now))
            if freshness is None or not 0 <= freshness.age_ms <= self._fresh_ms:
                break
            self._epoch = freshness.epoch
            if freshness.epoch == asked_for:
                return freshness, answers
        return None, [None] * len(answers)

    async def _eval(self, script: str, keys: Sequence[str], *arguments: str | int | bytes) -> int:
        async def work(redis: "Redis") -> int:
            return int(await redis.eval(script, len(keys), *keys, *arguments))

        return await self._cache.run(work)


def _or_damaged(answer: Any) -> Any:
    if isinstance(answer, ResponseError) and str(answer).startswith("WRONGTYPE"):
        return DAMAGED
    if isinstance(answer, Exception):
        raise answer
    return answer


def _milliseconds(time: tuple[int, int]) -> int:
    seconds, microseconds = time
    return seconds * 1000 + microseconds // 1000


def _key(epoch: str, session_id: int, part: str) -> str:
    return f"rowlock:{epoch}:{session_id}:{part}"


def _keys(epoch: str, session_id: int) -> list[str]:
    return [_key(epoch, session_id, part) for part in ("states", "versions", "meta")]
