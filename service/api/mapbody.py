"""The seat map's body: encoded, and compressed, once for each version of its states, not for each request.

The fields that differ between two answers (`source`, `asOf`, `ageMs`) are at the end of the body. A gzip stream may go
on with a block that is not compressed, so the compressed seats are used again, and the end is appended to them.
"""

import asyncio
import re
import zlib
from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

from cachetools import LRUCache

from service.api.mapjson import Packed, Seats, encode
from service.errors import Busy, BusyReason
from service.seatmap.maps import LAYOUT_SEATS_MAX, SeatMap
from service.single_flight import SingleFlight, Turns

SEATS_MAX = LAYOUT_SEATS_MAX
"""Of all sessions whose bodies are remembered; 200 bytes a seat."""
SEATS_AT_ONCE_MAX = 5_000
"""Larger maps take some ms, so a thread encodes them beside the event loop."""
GZIP_LEVEL = 3
AT_WORK_MAX = 2
"""Maps that are encoded or compressed at the same time. The largest takes 50 ms of a core, which holds need too."""
TURN_SECONDS = 1.0
"""The longest wait for the turn to encode or compress a map; then the request is refused, and may be repeated."""
GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
NOT_GZIP = re.compile(r"gzip;q=0(\.0*)?")

P = ParamSpec("P")
T = TypeVar("T")


class InThread(Protocol):
    """Runs a function beside the event loop."""

    async def __call__(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Returns the function's result."""


class MapBodies:
    """One per process. Every method raises Busy where the turn of a map does not come within `turn_seconds`."""

    def __init__(self, turn_seconds: float = TURN_SECONDS, in_thread: InThread = asyncio.to_thread) -> None:
        self._turn_seconds = turn_seconds
        self._in_thread = in_thread
        self._known: LRUCache[int, Seats] = LRUCache(SEATS_MAX, lambda seats: len(seats.states))
        self._wanted: dict[int, SeatMap] = {}
        self._turns = Turns(AT_WORK_MAX, turn_seconds)
        self._encoding: SingleFlight[int, Seats] = SingleFlight("seat map encoding")
        self._packing: SingleFlight[str, Packed] = SingleFlight("seat map compression")

    async def seats(self, session_id: int, seat_map: SeatMap) -> Seats:
        """The seats of the map, or of a newer one."""
        known = self._known.get(session_id)
        if known is not None and known.fits(seat_map):
            return known
        if len(seat_map.states) <= SEATS_AT_ONCE_MAX:
            known = self._known[session_id] = encode(session_id, seat_map, known)
            return known
        try:
            return await self._encode_large(session_id, seat_map)
        finally:
            if self._wanted.get(session_id) is seat_map:
                # Its turn did not come.
                del self._wanted[session_id]

    async def _encode_large(self, session_id: int, seat_map: SeatMap) -> Seats:
        """All who wait for the session share an encoding of the newest map that one of them has. An encoding that began
        before may be of an older map; then the next one is waited for.
        """
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + self._turn_seconds
        while clock() <= give_up_at:
            wanted = self._wanted.get(session_id)
            if wanted is None or wanted.layout is not seat_map.layout or wanted.as_of <= seat_map.as_of:
                self._wanted[session_id] = seat_map
            known = await self._encoding.run(session_id, lambda: self._encode_newest(session_id, seat_map))
            if known.fits(seat_map):
                return known
        raise Busy(BusyReason.MAP_ENCODE)

    async def _encode_newest(self, session_id: int, seat_map: SeatMap) -> Seats:
        async with self._turns.take(BusyReason.MAP_ENCODE):
            newest = self._wanted.pop(session_id, seat_map)
            known = await self._in_thread(encode, session_id, newest, self._known.get(session_id))
            self._known[session_id] = known
            return known

    async def gzip(self, seats: Seats, end: bytes) -> bytes:
        """The body, compressed. All who wait for the same seats share one compression."""
        packed = seats.packed
        if packed is None:
            packed = seats.packed = await self._packing.run(seats.etag, lambda: self._pack(seats))
        size = len(end)
        return b"".join(
            (
                packed.body,
                # A last block that is stored as it is (RFC 1951, 3.2.4), and the trailer (RFC 1952, 2.3.1).
                b"\x01",
                size.to_bytes(2, "little"),
                (size ^ 0xFFFF).to_bytes(2, "little"),
                end,
                zlib.crc32(end, packed.checksum).to_bytes(4, "little"),
                (len(seats.plain) + size).to_bytes(4, "little"),
            )
        )

    async def _pack(self, seats: Seats) -> Packed:
        async with self._turns.take(BusyReason.MAP_COMPRESS):
            return await self._in_thread(_pack, seats.plain)


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether the header `Accept-Encoding` allows gzip."""
    codings = [coding.strip() for coding in accept_encoding.lower().replace(" ", "").split(",")]
    return any(coding.partition(";")[0] == "gzip" and not NOT_GZIP.fullmatch(coding) for coding in codings)


def _pack(plain: bytes) -> Packed:
    packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return Packed(GZIP_HEADER + packer.compress(plain) + packer.flush(zlib.Z_SYNC_FLUSH), zlib.crc32(plain))
