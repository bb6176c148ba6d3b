"""The seat map as bytes: encoded, and compressed, once for each version of its states, not for each request.

What differs from answer to answer (`source`, `asOf`, `ageMs`) stands at the end of the body. A gzip stream may go on
with a piece that is not compressed, so the compressed seats are used again as they are, and the end is added to them.
"""

import asyncio
import hashlib
import re
import zlib
from dataclasses import dataclass, field
from datetime import datetime

import orjson
from cachetools import LRUCache

from service.reservation import SeatState
from service.seatmap import SeatMap
from service.seatreads import Layout

SEATS_MAX = 200_000
"""Of all sessions whose bodies are remembered; 200 bytes a seat."""
GZIP_LEVEL = 3
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
    packed: bytes = b""
    checksum: int = 0

    def is_one_of(self, etags: str) -> bool:
        """Whether the header `If-None-Match` names them, weak or not."""
        return self.etag.removeprefix("W/") in etags or etags == "*"


@dataclass(frozen=True, slots=True)
class MapBodies:
    """One per process."""

    _known: LRUCache[int, Seats] = field(default_factory=lambda: LRUCache(SEATS_MAX, lambda seats: len(seats.states)))
    _packing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def seats(self, session_id: int, seat_map: SeatMap) -> Seats:
        """The seats as they are in the map."""
        known = self._known.get(session_id)
        if known is None or known.layout is not seat_map.layout:
            known = self._known[session_id] = _encode(session_id, seat_map, _pieces(seat_map.layout))
        elif known.states != seat_map.states:
            known = self._known[session_id] = _encode(session_id, seat_map, known.pieces)
        return known

    async def gzip(self, seats: Seats, end: bytes) -> bytes:
        """The body, compressed."""
        if not seats.packed:
            # In a thread, because the largest map takes 50 ms; and one at a time.
            async with self._packing:
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


def _encode(session_id: int, seat_map: SeatMap, pieces: list[bytes]) -> Seats:
    layout, states = seat_map.layout, seat_map.states
    whole = [b""] * (2 * len(pieces))
    whole[::2] = pieces
    whole[1::2] = map(STATES.__getitem__, states)
    head = b'{"sessionId":%d,"currency":"%b","seats":[' % (session_id, layout.currency.encode())
    digest = hashlib.blake2b(states, digest_size=12, person=b"rowlock-map", key=layout.history.encode()[:64])
    digest.update(b"%d" % session_id)
    return Seats(layout, pieces, states, b"".join((head, *whole, b"],")), f'W/"{digest.hexdigest()}"')


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
