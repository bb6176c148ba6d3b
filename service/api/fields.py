"""The base models of bodies and replies, and the field types that bodies share."""

import re
import unicodedata
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

ID_MAX = 2**63 - 1
NAME_LENGTH_MAX, PLACEMENT_LENGTH_MAX = 200, 64
NO_CONTROL_CHARACTERS = r"^[^\x00-\x1f\x7f]+$"
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
BLANK = re.compile(r"[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""Letters, marks and symbols that show nothing: fillers, selectors of variants, the empty pattern of Braille."""
JOINERS = re.compile("[\u200c\u200d]")
VIRAMA = 9
"""The combining class of the signs after which a joiner changes the shape of a consonant."""


class Body(BaseModel):
    """A request's body: camelCase, unknown fields are refused, types are not converted."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True, frozen=True)


class Reply(BaseModel):
    """A reply in camelCase."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


def broken(rule: str) -> PydanticCustomError:
    """The error that a validator raises for a broken rule. The client reads `rule` unchanged."""
    return PydanticCustomError("rule", "{rule}", {"rule": rule})


def _printable(value: Any) -> Any:
    # Runs before the pattern, which is only for the OpenAPI document: a pattern is a poor message.
    if isinstance(value, str) and UNPRINTABLE.search(value):
        raise broken("must not have control characters or halves of surrogate pairs")
    return value


def _compose(text: str, length_max: int) -> str:
    """One spelling for texts that look the same (NFC), so that duplicates are found. It may be longer."""
    composed = unicodedata.normalize("NFC", text)
    if len(composed) > length_max:
        raise broken(f"must have at most {length_max} characters in Unicode's form NFC")
    return composed


def _not_invisible(name: str) -> str:
    if not any(unicodedata.category(char)[0] in "LNPS" for char in BLANK.sub("", name)):
        raise broken("must have a visible character")
    return name


def _visible(placement: str) -> str:
    # Invisible characters would make two seats look the same.
    if not JOINERS.sub("", placement).isprintable() or BLANK.search(placement):
        raise broken("must have only visible characters")
    if not all(_joins(placement, found.start()) for found in JOINERS.finditer(placement)):
        raise broken("must have joiners (U+200C, U+200D) only where they change the shape of a letter")
    return placement


def _joins(text: str, position: int) -> bool:
    """Whether the joiner there may be needed, by the rules of RFC 5892, A.1 and A.2: after a virama, or, if it
    prevents joining, between letters of a cursive script, which here are those that are written as Arabic is.
    """
    before, after = text[:position], text[position + 1 :]
    if before and unicodedata.combining(before[-1]) == VIRAMA:
        return True
    letters = [char for char in (_letter(reversed(before)), _letter(after)) if unicodedata.bidirectional(char) == "AL"]
    return text[position] == "\u200c" and len(letters) == 2  # noqa: PLR2004 - one on each side


def _letter(chars: Iterable[str]) -> str:
    """The first character that is not a mark."""
    return next((char for char in chars if not unicodedata.category(char).startswith("M")), " ")


def _from_string(value: Any) -> Any:
    # Pydantic reads numbers and strings of digits as seconds since 1970.
    if not isinstance(value, str) or "T" not in value.upper():
        raise broken("must be a date and time with an offset, as in RFC 3339")
    return value


def _to_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise broken("must be in the years 1 to 9999 in UTC") from None


def _from_digits(value: Any) -> Any:
    # Pydantic also reads 1_000, 1.0, +1 and spaces as numbers.
    if isinstance(value, str) and not (value.isascii() and value.removeprefix("-").isdecimal()):
        raise broken("must be a whole number in decimal digits")
    return value


Printable = BeforeValidator(_printable)
Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=NAME_LENGTH_MAX, pattern=NO_CONTROL_CHARACTERS),
    Printable,
    AfterValidator(lambda text: _not_invisible(_compose(text, NAME_LENGTH_MAX))),
]
Placement = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, min_length=1, max_length=PLACEMENT_LENGTH_MAX, pattern=NO_CONTROL_CHARACTERS
    ),
    Printable,
    AfterValidator(lambda text: _visible(_not_invisible(_compose(text, PLACEMENT_LENGTH_MAX)))),
]
SeatId = Annotated[int, Field(ge=1, le=ID_MAX)]
FromDigits = BeforeValidator(_from_digits)
"""For numbers in a path or a query string."""
# Strict mode would refuse strings, and JSON has no other type for times.
Time = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_from_string), AfterValidator(_to_utc)]
