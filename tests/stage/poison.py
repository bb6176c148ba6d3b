"""Dead letters that no relay of ours has sent: thirty kinds, as another program with the account could send them."""

import bz2
import lzma
import zlib
from collections.abc import Iterator
from struct import pack
from typing import Any
from uuid import UUID

from kombu import Connection

from service.broker.frames import (
    BASIC,
    BODY,
    CONTENT_HEAD,
    END,
    FRAME_HEAD,
    HEADER,
    HEADERS,
    LENGTH,
    METHOD,
    METHOD_HEAD,
    PUBLISH,
)
from service.broker.topology import DEAD
from tests.stage.broker import connected, declare_inbox

HINT = f'{{"reservationId": "{UUID(int=7)}", "expiresAt": "2030-01-01T00:00:00Z"}}'.encode()
"""A hint like ours, of a reservation that does not exist: the inbox acknowledges it."""
ZEROS = bytes(1 << 27)

Letter = tuple[bytes, dict[str, Any] | bytes]
"""A body, and its headers: bytes are a table that the driver would not write."""


def field(name: bytes, kind: bytes, value: bytes) -> bytes:
    """One entry of a table of headers."""
    return bytes([len(name)]) + name + kind + value


def nested(depth: int) -> bytes:
    """A table in a table, and so on."""
    table = b""
    for _ in range(depth):
        table = field(b"t", b"F", pack(">I", len(table)) + table)
    return table


def harmless() -> dict[str, Letter]:
    """Those that the inbox acknowledges, because they are hints."""
    return {
        "unknown reservation": (HINT, {}),
        "more fields": (HINT[:-1] + b', "more": 1}', {}),
        "malformed trace": (HINT, {"traceparent": "00-zz"}),
        "a number for a trace": (HINT, {"traceparent": 7}),
        "an encoding that it has not": (HINT, {"content-encoding": "bz2"}),
    }


def poisonous() -> dict[str, Letter]:
    """Those that the inbox parks. The first four have a gigabyte when they are decompressed."""
    return {
        "a bomb": (bz2.compress(ZEROS) * 8, {"compression": "application/x-bz2"}),
        "a bomb of lzma": (lzma.compress(ZEROS, preset=0) * 8, {"compression": "xz"}),
        "a bomb that begins": (bz2.compress(ZEROS) * 8 + b"odd", {"compression": "bzip2"}),
        "a small bomb of zlib": (zlib.compress(bytes(1 << 21), 9), {"compression": "gzip"}),
        "an unknown compression": (HINT, {"compression": "rowlock"}),
        "a hint with a compression": (HINT, {"compression": "gzip"}),
        "a number for a compression": (HINT, {"compression": 7}),
        "no compression": (HINT, {"compression": ""}),
        "a long body": (b" " * 300_000 + HINT, {}),
        "a long text": (b'"' + b"x" * 300_000 + b'"', {}),
        "long headers": (HINT, {"x": "x" * 100_000}),
        "many headers": (HINT, {f"{n}": True for n in range(5_000)}),
        "headers in headers": (HINT, nested(1_000)),
        "a time that no calendar has": (HINT, field(b"t", b"T", b"\xff" * 8)),
        "nothing": (b"", {}),
        "no JSON": (b"expire", {}),
        "a list": (b"[1]", {}),
        "lists in lists": (b"[" * 4_000, {}),
        "a number with many digits": (b"9" * 4_000, {}),
        "a number for an id": (b'{"reservationId": 7, "expiresAt": "2030-01-01T00:00:00Z"}', {}),
        "a list for an id": (b'{"reservationId": [], "expiresAt": "2030-01-01T00:00:00Z"}', {}),
        "half a character": (b'{"reservationId": "\\ud800", "expiresAt": "2030-01-01T00:00:00Z"}', {}),
        "no time zone": (HINT.replace(b"Z", b""), {}),
        "a year that no calendar has": (HINT.replace(b"2030", b"0000"), {}),
        "no UTF-8": (b"\xff\xfe\xfd", {}),
    }


def send_raw(connection: Connection, letters: Iterator[Letter]) -> None:
    """Publishes them as dead letters, without waiting for confirms."""
    channel = connection.channel()
    for body, headers in letters:
        if isinstance(headers, bytes):
            channel.connection.transport.write(_frames(channel, body, headers))
        else:
            message = channel.prepare_message(body, headers=headers, properties={"delivery_mode": 2})
            channel.basic_publish(message, DEAD.name, "")
    channel.close()


def send_poison(url: str, each: int) -> dict[str, int]:
    """This many letters of each kind, in turn. How many of them are to be parked, and how many acknowledged."""
    bad, good = poisonous(), harmless()
    kinds = [*bad.values(), *good.values()]
    with connected(url) as connection:
        declare_inbox(connection)
        send_raw(connection, (kind for _ in range(each) for kind in kinds))
    return {"parked": each * len(bad), "acknowledged": each * len(good)}


def _frames(channel: Any, body: bytes, table: bytes) -> bytes:
    exchange = DEAD.name.encode()
    method = METHOD_HEAD.pack(BASIC, PUBLISH, 0) + bytes([len(exchange)]) + exchange + b"\x00\x00"
    head = CONTENT_HEAD.pack(BASIC, 0, len(body), HEADERS) + LENGTH.pack(len(table)) + table
    contents = ((METHOD, method), (HEADER, head), (BODY, body))
    return b"".join(
        FRAME_HEAD.pack(kind, channel.channel_id, len(content)) + content + END for kind, content in contents
    )
