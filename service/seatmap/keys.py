"""The keys and the Lua scripts of the seat maps in Redis.

A map is three keys: `states` (a flag, B while it is built and C when it is complete, then A, H or S for each seat by
position), `versions` (four bytes a seat, big-endian) and `meta` (the builder's token, counts of held and sold seats).
Their names carry an epoch: in another one the versions mean nothing. The watermark names the current epoch. An epoch
begins with PostgreSQL's part, which `service.seatmap.stored` reads, and ends with Redis's part: its run and the
operator's counter.
"""

from collections.abc import Sequence
from pathlib import Path

from service.cache import Cache

WATERMARK = "rowlock:watermark"
"""Epoch, moment by Redis's clock, and moment by PostgreSQL's clock."""
BUMP = "rowlock:bump"
"""`INCR rowlock:bump` begins a new epoch, so that every map is built again. Needed after manual changes of seats."""
PLACE = "rowlock:place"
"""An epoch, and the number in the log that its maps have reached at least."""

BEGIN, APPLY, CLOCK, FINISH, UNLOCK, RENEW = (
    (Path(__file__).parent / "lua" / f"{name}.lua").read_text()
    for name in ("begin", "apply", "clock", "finish", "unlock", "renew")
)


def key(epoch: str, session_id: int, part: str) -> str:
    """The name of one key of a map, or of the lock of its builder."""
    return f"rowlock:{epoch}:{session_id}:{part}"


def keys(epoch: str, session_id: int) -> list[str]:
    """The names of a map's keys, in the order that the scripts take them."""
    return [key(epoch, session_id, part) for part in ("states", "versions", "meta")]


async def run_script(cache: Cache, script: str, names: Sequence[str], *arguments: str | int | bytes) -> int:
    """The script's result. Raises CacheAway."""
    return int(await cache.run(lambda redis: redis.eval(script, len(names), *names, *arguments)))
