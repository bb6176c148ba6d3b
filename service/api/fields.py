"""The field types that bodies share, and what all bodies and replies have in common."""

import unicodedata
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

ID_MAX = 2**63 - 1
NO_CONTROL_CHARACTERS = r"^[^\x00-\x1f\x7f]+$"


class Body(BaseModel):
    """What a client sends: camelCase, nothing unknown, no conversion of types."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", strict=True, frozen=True)


class Reply(BaseModel):
    """What a client gets, in camelCase."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


def _compose(text: str) -> str:
    """One spelling for what looks the same (NFC), so that doubled names are seen to be doubled."""
    return unicodedata.normalize("NFC", text)


Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=NO_CONTROL_CHARACTERS),
    AfterValidator(_compose),
]
Placement = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=32, pattern=NO_CONTROL_CHARACTERS),
    AfterValidator(_compose),
]
SeatId = Annotated[int, Field(ge=1, le=ID_MAX)]
# Strict mode would refuse the RFC 3339 strings that JSON has instead of times.
Time = Annotated[AwareDatetime, Field(strict=False)]
Moment = Annotated[datetime, Field(description="RFC 3339 in UTC")]
