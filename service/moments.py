"""How a moment is written where the service writes text: RFC 3339, in UTC."""

from datetime import UTC, datetime


def rfc3339(moment: datetime) -> str:
    """`2030-06-01T18:00:00Z`, or with six more digits for a fraction of a second. Raises ValueError without a zone."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no time zone")
    return moment.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"
