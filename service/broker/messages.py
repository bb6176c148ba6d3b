"""The format of the messages: JSON in camelCase, as over HTTP."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self
from uuid import UUID

import orjson

from service.events.log import Logged
from service.observability.tracing import HEADER, TRACEPARENT


@dataclass(frozen=True, slots=True)
class Hint:
    """The time when a hold will be overdue. Hints may be lost, late, early, repeated or out of order without harm.

    `due_in_ms` is the time that it waits in RabbitMQ, by PostgreSQL's clock; None means the time to live of its queue.
    `traceparent` is for the message's headers.
    """

    reservation_id: UUID
    expires_at: datetime
    due_in_ms: int | None = field(default=None, compare=False)
    traceparent: str | None = field(default=None, compare=False)

    def encode(self) -> bytes:
        """The body of a message."""
        return orjson.dumps({"reservationId": str(self.reservation_id), "expiresAt": self.expires_at})

    @classmethod
    def decode(cls, body: bytes) -> Self | None:
        """None if the body is not a hint."""
        try:
            content = orjson.loads(body)
            hint = cls(UUID(content["reservationId"]), datetime.fromisoformat(content["expiresAt"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        return hint if hint.expires_at.tzinfo is not None else None


def body_of(message: Any) -> bytes:
    """The body as it was sent; the driver has text for an empty one."""
    return message.body if isinstance(message.body, bytes) else str(message.body).encode()


def traceparent_of(message: Any) -> str | None:
    """The trace of the message; None if its headers have none, or one that is malformed."""
    given = (message.headers or {}).get(HEADER)
    return given if isinstance(given, str) and TRACEPARENT.fullmatch(given) else None


def encode_event(event: Logged) -> bytes:
    """The body of a message. Within one `log`, `number` has no gaps, and each of `seats` carries its new version."""
    return orjson.dumps(
        {
            "log": event.log,
            "number": event.number,
            "kind": event.kind.value,
            "sessionId": event.session_id,
            "reservationId": event.reservation_id and str(event.reservation_id),
            "at": event.at,
            # JSON already, as PostgreSQL keeps it.
            "seats": orjson.Fragment(event.seats),
        },
        option=orjson.OPT_UTC_Z,
    )
