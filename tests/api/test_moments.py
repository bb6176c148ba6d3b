"""Times in text: RFC 3339, in UTC."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from service.moments import rfc3339


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2030, 6, 1, 18, tzinfo=UTC), "2030-06-01T18:00:00Z"),
        (datetime(2030, 6, 1, 18, 0, 0, 120, tzinfo=UTC), "2030-06-01T18:00:00.000120Z"),
        (datetime(2030, 6, 1, 1, tzinfo=timezone(timedelta(hours=3))), "2030-05-31T22:00:00Z"),
    ],
)
def test_a_moment_is_written_in_utc(moment: datetime, text: str) -> None:
    assert rfc3339(moment) == text
    assert datetime.fromisoformat(text) == moment


def test_a_moment_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        rfc3339(datetime(2030, 6, 1))  # noqa: DTZ001 - a zone is what it lacks
