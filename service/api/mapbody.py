"""The seat map as bytes: encoded, and compressed, once for each version of its states, not for each request.

What differs from answer to answer (`source`, `asOf`, `ageMs`) stands at the end of the body. A gzip stream may go on
with a piece that is not compressed, so the compressed seats are used again as they are, and the end is added to them.
"""

import asyncio
import hashlib
import re
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from weakref import WeakValueDictionary

import orjson
from cachetools import LRUCache

from service.errors import Busy, BusyReason
from service.reservation import SeatState
from service.seatmap.maps import LAYOUT_SEATS_MAX, SeatMap
from service.seatmap.stored import Layout

SEATS_MAX = LAYOUT_SEATS_MAX
"""Of all sessions whose bodies are remembered; 200 bytes a seat."""
SEATS_AT_ONCE_MAX = 5_000
"""More of them take some ms, in which nobody else would be answered: a thread encodes them."""
GZIP_LEVEL = 3
AT_WORK_MAX = 2
"""So many maps are encoded or compressed at once: the largest takes 50 ms of a core, which holds and payments need too.
"""
TURN_SECONDS = 1.0
"""Nobody waits longer for the turn of a map; who is refused then comes again."""
GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
NOT_GZIP = re.compile(r"gzip;q=0(\.0*)?")

STATES = {ord(state[0]): state.value.encode() + b'"}' for state in SeatState}


@dataclass(slots=True)
class Seats:
    """The body up to the seats' end, for one version of the states."""

    layout: Layout
    pieces: list[bytes]
    states: bytes
    plain: bytes
    etag: str
    as_of: datetime
    packed: bytes = b""
    checksum: int = 0
    packing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def is_one_of(self, etags: str) -> bool:
        """Whether the header `If-None-Match` names them, weak or not."""
        return self.etag.removeprefix("W/") in etags or etags == "*"


@dataclass(frozen=True, slots=True)
class MapBodies:
    """One per process."""

    _known: LRUCache[int, Seats] = field(default_factory=lambda: LRUCache(SEATS_MAX, lambda seats: len(seats.states)))
    _wanted: dict[int, SeatMap] = field(default_factory=dict)
    _encoding: WeakValueDictionary[int, asyncio.Lock] = field(default_factory=WeakValueDictionary)
    _at_work: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_WORK_MAX))

    async def seats(self, session_id: int, seat_map: SeatMap) -> Seats:
        """The seats as they are in the map, or in a newer one. Raises Busy where a large one's turn does not come."""
        if (known := self._fitting(session_id, seat_map)) is not None:
            return known
        if len(seat_map.states) <= SEATS_AT_ONCE_MAX:
            known = self._known[session_id] = _encode(session_id, seat_map, self._known.get(session_id))
            return known
        newest = self._wanted.get(session_id)
        if newest is None or newest.layout is not seat_map.layout or newest.as_of <= seat_map.as_of:
            self._wanted[session_id] = seat_map
        try:
            return await self._encode_newest(session_id, seat_map)
        finally:
            if self._wanted.get(session_id) is seat_map:
                # Its turn did not come.
                del self._wanted[session_id]

    async def _encode_newest(self, session_id: int, seat_map: SeatMap) -> Seats:
        """One at a time for each session, and that one for all who wait."""
        lock = self._encoding.setdefault(session_id, asyncio.Lock())
        async with self._turn(lock, BusyReason.MAP_ENCODE):
            newest = self._wanted.pop(session_id, seat_map)
            if (known := self._fitting(session_id, seat_map)) is None:
                is_newer = newest.layout is seat_map.layout and newest.as_of >= seat_map.as_of
                chosen = newest if is_newer else seat_map
                known = await asyncio.to_thread(_encode, session_id, chosen, self._known.get(session_id))
                self._known[session_id] = known
        return known

    @asynccontextmanager
    async def _turn(self, lock: asyncio.Lock, reason: BusyReason) -> AsyncIterator[None]:
        """Time for a work in a thread. Raises Busy before it begins, or not at all."""
        try:
            async with asyncio.timeout(TURN_SECONDS) as waiting, lock, self._at_work:
                waiting.reschedule(None)
                yield
        except TimeoutError:
            raise Busy(reason) from None

    def _fitting(self, session_id: int, seat_map: SeatMap) -> Seats | None:
        known = self._known.get(session_id)
        if known is None or known.layout is not seat_map.layout:
            return None
        return known if known.states == seat_map.states or known.as_of > seat_map.as_of else None

    async def gzip(self, seats: Seats, end: bytes) -> bytes:
        """The body, compressed. Raises Busy where its turn does not come in time."""
        if not seats.packed:
            # Once for all who wait.
            async with self._turn(seats.packing, BusyReason.MAP_COMPRESS):
                if not seats.packed:
                    seats.checksum = zlib.crc32(seats.plain)
                    seats.packed = await asyncio.to_thread(_pack, seats.plain)
        size = len(end)
        return b"".join(
            (
                seats.packed,
                # A last block that is stored as it is (RFC 1951, 3.2.4), and the trailer (RFC 1952, 2.3.1).
                b"\x01",
                size.to_bytes(2, "little"),
                (size ^ 0xFFFF).to_bytes(2, "little"),
                end,
                zlib.crc32(end, seats.checksum).to_bytes(4, "little"),
                (len(seats.plain) + size).to_bytes(4, "little"),
            )
        )


def end_of_body(seat_map: SeatMap) -> bytes:
    """What follows the seats."""
    return b'"source":"%b","asOf":"%b","ageMs":%d}' % (
        seat_map.source.encode(),
        format_moment(seat_map.as_of).encode(),
        seat_map.age_ms,
    )


def format_moment(moment: datetime) -> str:
    """RFC 3339 in UTC."""
    return moment.isoformat().replace("+00:00", "Z")


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether the header says so."""
    codings = [coding.strip() for coding in accept_encoding.lower().replace(" ", "").split(",")]
    return any(coding.partition(";")[0] == "gzip" and not NOT_GZIP.fullmatch(coding) for coding in codings)


def _encode(session_id: int, seat_map: SeatMap, known: Seats | None) -> Seats:
    layout, states = seat_map.layout, seat_map.states
    pieces = known.pieces if known is not None and known.layout is layout else _pieces(layout)
    whole = [b""] * (2 * len(pieces))
    whole[::2] = pieces
    whole[1::2] = map(STATES.__getitem__, states)
    head = b'{"sessionId":%d,"currency":"%b","seats":[' % (session_id, layout.currency.encode())
    digest = hashlib.blake2b(states, digest_size=12, person=b"rowlock-map", key=layout.history.encode()[:64])
    digest.update(b"%d" % session_id)
    plain = b"".join((head, *whole, b"],"))
    return Seats(layout, pieces, states, plain, f'W/"{digest.hexdigest()}"', seat_map.as_of)


def _pieces(layout: Layout) -> list[bytes]:
    """Each seat's JSON up to its state; 100,000 of them take 0.1 s, and are remembered with the body."""
    columns = zip(layout.seat_ids, layout.placements, layout.prices, strict=True)
    pieces = [
        b',{"seatId":%d,"placement":%b,"price":%d,"state":"' % (seat_id, orjson.dumps(placement), price)
        for seat_id, placement, price in columns
    ]
    pieces[0] = pieces[0][1:]
    return pieces


def _pack(plain: bytes) -> bytes:
    packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return GZIP_HEADER + packer.compress(plain) + packer.flush(zlib.Z_SYNC_FLUSH)
