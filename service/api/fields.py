"""The field types that bodies share, and what all bodies and replies have in common."""

import re
import unicodedata
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

ID_MAX = 2**63 - 1
NAME_LENGTH_MAX, PLACEMENT_LENGTH_MAX = 200, 32
NO_CONTROL_CHARACTERS = r"^[^\x00-\x1f\x7f]+$"
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


class Body(BaseModel):
    """What a client sends: camelCase, nothing unknown, no conversion of types."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True, frozen=True)


class Reply(BaseModel):
    """What a client gets, in camelCase."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


def broken(rule: str) -> PydanticCustomError:
    """What a validator raises where its field breaks the rule, which the client reads as it stands."""
    return PydanticCustomError("rule", "{rule}", {"rule": rule})


def _printable(value: Any) -> Any:
    # Before the pattern, which is for the document: as a message nobody understands it.
    if isinstance(value, str) and UNPRINTABLE.search(value):
        raise broken("must not have control characters or halves of surrogate pairs")
    return value


def _compose(text: str, length_max: int) -> str:
    """One spelling for what looks the same (NFC), so that doubled names are seen to be doubled. It may be longer."""
    composed = unicodedata.normalize("NFC", text)
    if len(composed) > length_max:
        raise broken(f"must have at most {length_max} characters in Unicode's form NFC")
    return composed


def _visible(placement: str) -> str:
    # What can't be seen would make two seats that look the same.
    if not placement.isprintable():
        raise broken("must have visible characters only")
    return placement


def _from_string(value: Any) -> Any:
    # Pydantic takes numbers, and strings of digits, for seconds since 1970.
    if not isinstance(value, str) or "T" not in value.upper():
        raise broken("must be a string with date, time and offset as RFC 3339 writes them")
    return value


def _to_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise broken("must be in the years 1 to 9999 in UTC") from None


def _from_digits(value: Any) -> Any:
    # Pydantic also reads 1_000, 1.0, +1 and blanks as numbers.
    if isinstance(value, str) and not (value.isascii() and value.removeprefix("-").isdecimal()):
        raise broken("must be a whole number in decimal digits")
    return value


Printable = BeforeValidator(_printable)
Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=NAME_LENGTH_MAX, pattern=NO_CONTROL_CHARACTERS),
    Printable,
    AfterValidator(lambda text: _compose(text, NAME_LENGTH_MAX)),
]
Placement = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, min_length=1, max_length=PLACEMENT_LENGTH_MAX, pattern=NO_CONTROL_CHARACTERS
    ),
    Printable,
    AfterValidator(lambda text: _visible(_compose(text, PLACEMENT_LENGTH_MAX))),
]
SeatId = Annotated[int, Field(ge=1, le=ID_MAX)]
FromDigits = BeforeValidator(_from_digits)
"""For numbers in a path or a query."""
# Strict mode would refuse the RFC 3339 strings that JSON has instead of times.
Time = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_from_string), AfterValidator(_to_utc)]
