"""What is kept of a message that RabbitMQ delivers, whatever its sender wrote."""

from types import SimpleNamespace
from typing import Any

import pytest
from amqp.exceptions import UnexpectedFrame

from service.broker.frames import BASIC, BODY, CONTENT_HEAD, HEADER, HEADERS, LENGTH, METHOD
from service.broker.reading import BODY_BYTES_MAX, HEADER_BYTES_MAX, Fault, Received, frame_handler
from tests.stage.poison import field, nested

DELIVER = BASIC.to_bytes(2, "big") + (60).to_bytes(2, "big")
FRAME_BYTES = 131_064


def read(size: int, table: bytes = b"", part: bytes = b"x" * FRAME_BYTES) -> Received:
    """The message that the driver gets, of this size, in parts."""
    came: list[Received] = []
    on_frame = frame_handler(SimpleNamespace(bytes_recv=0), lambda *called: came.append(called[-1]))
    on_frame((METHOD, 1, DELIVER))
    on_frame((HEADER, 1, CONTENT_HEAD.pack(BASIC, 0, size, HEADERS) + LENGTH.pack(len(table)) + table))
    for sent in range(0, size, len(part)):
        assert not came
        on_frame((BODY, 1, part[: size - sent]))
    (message,) = came
    return message


@pytest.mark.parametrize("size", [BODY_BYTES_MAX + 1, 100_000_000])
def test_only_the_beginning_of_a_long_body_is_kept(size: int) -> None:
    message = read(size)
    assert (message.fault, len(message.body)) == (Fault.LONG, BODY_BYTES_MAX)


@pytest.mark.parametrize("part", [b"x", b"x" * 7, b"x" * FRAME_BYTES], ids=["bytes", "parts", "whole"])
def test_body_within_the_limit_is_whole(part: bytes) -> None:
    message = read(BODY_BYTES_MAX, part=part)
    assert (message.fault, message.body) == (None, b"x" * BODY_BYTES_MAX)


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        (field(b"x", b"S", LENGTH.pack(HEADER_BYTES_MAX) + b"x" * HEADER_BYTES_MAX), Fault.LONG),
        (nested(1_000), Fault.HEADERS),
        (field(b"t", b"T", b"\xff" * 8), Fault.HEADERS),
        (b"\xff", Fault.HEADERS),
        (field(b"compression", b"t", b"\x00"), Fault.COMPRESSED),
    ],
    ids=["long", "deep", "no time", "cut off", "compressed"],
)
def test_headers_are_read_within_limits(table: bytes, fault: Fault) -> None:
    message = read(2, table)
    assert (message.fault, message.body) == (fault, b"xx")


@pytest.mark.parametrize(
    ("first", "second"), [((8, 0, b""), (BODY, 1, b"x")), ((METHOD, 1, DELIVER), (METHOD, 1, DELIVER))]
)
def test_frames_out_of_turn_end_the_connection(first: Any, second: Any) -> None:
    on_frame = frame_handler(SimpleNamespace(bytes_recv=0), lambda *_: None)
    assert not on_frame(first)
    with pytest.raises(UnexpectedFrame):
        on_frame(second)
