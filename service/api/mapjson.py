"""The seat map's JSON: the models that describe it, and a fast encoder that takes names and their order from them.

Pydantic would take a second for 100,000 seats. The encoder joins pieces that are made once for each layout, and a test
compares its bytes with those of the models.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

import orjson
from pydantic import Field

from service.api import shown
from service.api.fields import Reply
from service.moments import rfc3339
from service.reservation import SeatState
from service.seatmap.maps import SeatMap
from service.seatmap.stored import Layout


class MappedSeat(Reply):
    """A seat and its state at `asOf`."""

    seat_id: shown.SeatId
    placement: shown.Placement
    price: shown.Price
    state: SeatState


class SeatMapReply(Reply):
    """The seats by position, and their source. Everything committed at `asOf` is in the map; newer changes may be."""

    session_id: shown.SessionId
    currency: shown.Currency
    seats: list[MappedSeat]
    source: Annotated[Literal["redis", "postgresql"], Field(description="PostgreSQL if Redis is down or behind")]
    as_of: shown.Moment
    age_ms: Annotated[int, Field(description="Milliseconds since `asOf`; may be a little high", examples=[40])]


def _template(model: type[Reply]) -> bytes:
    """The model's JSON with a format for each value, named like its field: a number, or JSON."""
    members = [
        b'"%b":%%(%b)%b' % ((field.alias or name).encode(), name.encode(), b"d" if field.annotation is int else b"b")
        for name, field in model.model_fields.items()
    ]
    return b"{" + b",".join(members) + b"}"


# The state is last in a seat, and all that differs between two answers with the same states comes after the seats.
SEAT, SEAT_END = _template(MappedSeat).split(b"%(state)b")
HEAD, END = _template(SeatMapReply).split(b"%(seats)b")
STATES = {ord(state[0]): orjson.dumps(state.value) + SEAT_END for state in SeatState}


@dataclass(frozen=True, slots=True)
class Packed:
    """The beginning of a gzip stream, and the CRC-32 of its content."""

    body: bytes
    checksum: int


@dataclass(slots=True)
class Seats:
    """The body up to the end of the seats, for one version of the states.

    `pieces` are the seats without their states. They are `packed` for the first client that accepts gzip.
    """

    layout: Layout
    pieces: list[bytes]
    states: bytes
    plain: bytes
    etag: str
    as_of: datetime
    packed: Packed | None = None

    def fits(self, seat_map: SeatMap) -> bool:
        """Whether these seats answer a request for the map: they are the same, or newer."""
        return self.layout is seat_map.layout and (self.states == seat_map.states or self.as_of > seat_map.as_of)

    def is_one_of(self, etags: str) -> bool:
        """Whether the header `If-None-Match` names these seats, by a weak or a strong ETag."""
        return self.etag.removeprefix("W/") in etags or etags == "*"


def encode(session_id: int, seat_map: SeatMap, known: Seats | None) -> Seats:
    """The seats of the map. The pieces of `known` are used again where its layout is the same."""
    layout, states = seat_map.layout, seat_map.states
    pieces = known.pieces if known is not None and known.layout is layout else _pieces(layout)
    whole = [b""] * (2 * len(pieces))
    whole[::2] = pieces
    whole[1::2] = map(STATES.__getitem__, states)
    head = HEAD % {b"session_id": session_id, b"currency": orjson.dumps(layout.currency)}
    plain = b"".join((head, b"[", *whole, b"]"))
    return Seats(layout, pieces, states, plain, _etag(session_id, seat_map), seat_map.as_of)


def end_of_body(seat_map: SeatMap) -> bytes:
    """The body after the seats."""
    return END % {
        b"source": b'"%b"' % seat_map.source.encode(),
        b"as_of": b'"%b"' % rfc3339(seat_map.as_of).encode(),
        b"age_ms": seat_map.age_ms,
    }


def _pieces(layout: Layout) -> list[bytes]:
    """Each seat's JSON up to its state. 100,000 of them take 0.1 s, and are remembered with the body."""
    columns = {"seat_id": layout.seat_ids, "placement": map(orjson.dumps, layout.placements), "price": layout.prices}
    # By position, because formats by name take half as long again.
    fields = re.findall(rb"%\((\w+)\)", SEAT)
    following = b"," + re.sub(rb"%\(\w+\)", b"%", SEAT)
    pieces = list(map(following.__mod__, zip(*(columns[field.decode()] for field in fields), strict=True)))
    pieces[0] = pieces[0][1:]
    return pieces


def _etag(session_id: int, seat_map: SeatMap) -> str:
    history = seat_map.layout.history.encode()[:64]
    digest = hashlib.blake2b(seat_map.states, digest_size=12, person=b"rowlock-map", key=history)
    digest.update(b"%d" % session_id)
    return f'W/"{digest.hexdigest()}"'
