"""The cursors of pages: opaque to clients, `next` in one page and `cursor` in the request for the one after."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import Query

from service.api.fields import ID_MAX
from service.errors import Invalid
from service.moments import rfc3339

Cursor = Annotated[str | None, Query(max_length=200, description="`next` of the page before")]

FIRST_SESSION = (datetime(1970, 1, 1, tzinfo=UTC), 0)
NEWEST_RESERVATION = UUID(int=2**128 - 1)


def encode_session(showtime: datetime, session_id: int) -> str:
    """The cursor after a session in the list by (showtime, id)."""
    return urlsafe_b64encode(f"{rfc3339(showtime)}|{session_id}".encode()).decode()


def decode_session(cursor: str | None) -> tuple[datetime, int]:
    """Where the page begins. Raises Invalid."""
    if cursor is None:
        return FIRST_SESSION
    try:
        showtime, session_id = urlsafe_b64decode(cursor).decode().split("|")
        after = datetime.fromisoformat(showtime), int(session_id)
    except ValueError:
        raise Invalid("cursor", "is not one that a page gave") from None
    # Pages give times in UTC; another offset can lead out of the years that PostgreSQL's driver knows.
    if after[0].utcoffset() != timedelta(0) or not 0 <= after[1] <= ID_MAX:
        raise Invalid("cursor", "is not one that a page gave")
    return after


def decode_reservation(cursor: str | None) -> UUID:
    """Where the page of a history begins. Raises Invalid."""
    try:
        return UUID(cursor) if cursor is not None else NEWEST_RESERVATION
    except ValueError:
        raise Invalid("cursor", "is not one that a page gave") from None
