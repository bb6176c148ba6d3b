"""Reads messages within limits: their senders are not ours, and decide about every byte of them.

The driver would collect a body of any size, parse headers of any depth, and decompress. Here a message that is too long
keeps only the beginning of its body, headers that can't be parsed are left out, and nothing is decompressed or decoded.
"""

from collections.abc import Callable
from enum import StrEnum
from struct import unpack_from
from typing import Any

from amqp import Message, spec
from amqp.exceptions import UnexpectedFrame
from kombu import Connection

from service.broker.frames import BODY, HEADER, METHOD

BODY_BYTES_MAX = 4_096
HEADER_BYTES_MAX = 8_192
"""Our own messages have about 100 bytes each; RabbitMQ adds a few hundred to the headers when it moves them."""
HEARTBEAT = 8
WITH_CONTENT = {spec.Basic.Deliver, spec.Basic.GetOk, spec.Basic.Return}


class Fault(StrEnum):
    """Why a message can't be a hint."""

    LONG = "too long"
    HEADERS = "unreadable headers"
    COMPRESSED = "compressed"
    CONTENT = "not a hint"


class Received(Message):  # type: ignore[misc]
    """A message within limits: one that is too long has only the beginning of its body. Its `fault` is one that makes
    any message unreadable.
    """

    fault: Fault | None = None
    body: Any
    properties: dict[str, Any]

    def inbound_header(self, buf: bytes, offset: int = 0) -> int:
        """The driver calls this with the size of the body and the properties."""
        (self.body_size,) = unpack_from(">Q", buf, offset + 4)
        if self.body_size > BODY_BYTES_MAX or len(buf) > HEADER_BYTES_MAX:
            self.fault = Fault.LONG
        if len(buf) <= HEADER_BYTES_MAX:
            self._read_properties(buf, offset)
        self.ready = not self.body_size
        return len(buf)

    def inbound_body(self, buf: bytes) -> None:
        """The driver calls this with each part of the body."""
        self.body_received += len(buf)
        self.body = ((self.body or b"") + bytes(buf[:BODY_BYTES_MAX]))[:BODY_BYTES_MAX]
        self.ready = self.body_received >= self.body_size

    def _read_properties(self, buf: bytes, offset: int) -> None:
        try:
            super().inbound_header(buf, offset)
            if "compression" in (self.headers or {}):
                self.fault = self.fault or Fault.COMPRESSED
        except Exception:  # noqa: BLE001 - the driver has no error for values that it does not expect
            self.properties = {}
            self.fault = self.fault or Fault.HEADERS


def frame_handler(connection: Any, callback: Callable[..., None]) -> Callable[[tuple[int, int, bytes]], bool]:
    """For the driver, in place of its own: calls back with each method and, where it has one, its message."""
    partial: dict[int, Received] = {}

    def on_frame(frame: tuple[int, int, bytes]) -> bool:
        kind, channel, content = frame
        # Its heartbeats look at this.
        connection.bytes_recv += 1
        if kind == HEARTBEAT:
            return False
        message = partial.get(channel)
        if kind == METHOD and message is None:
            method = unpack_from(">HH", content, 0)
            if method not in WITH_CONTENT:
                callback(channel, method, content, None)
                return True
            partial[channel] = Received(frame_method=method, frame_args=content)
            return False
        if message is None or kind not in {HEADER, BODY}:
            raise UnexpectedFrame(f"a frame of type {kind} came out of turn")
        message.inbound_header(content) if kind == HEADER else message.inbound_body(content)
        if message.ready:
            del partial[channel]
            callback(channel, message.frame_method, message.frame_args, message)
        return bool(message.ready)

    return on_frame


def reading_channel(connection: Connection) -> Any:
    """A channel whose messages stay as they were sent: the driver would decode what names an encoding."""
    channel = connection.channel()
    channel.auto_decode = False
    return channel
