"""Validators' faults in the service's own words: what a client reads in a 422."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from service.api import httperrors, problems

MESSAGES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "missing": lambda _: "is required",
    "extra_forbidden": lambda _: "is not permitted: there is no such field",
    "model_attributes_type": lambda _: "must be a JSON object, such as {}",
    "model_type": lambda _: "must be a JSON object, such as {}",
    "dict_type": lambda _: "must be a JSON object, such as {}",
    "list_type": lambda _: "must be an array, such as []",
    "string_type": lambda _: "must be a string",
    "string_unicode": lambda _: "must be valid Unicode, without halves of surrogate pairs",
    "string_too_short": lambda rule: f"must have at least {_counted(rule['min_length'], 'character')}",
    "string_too_long": lambda rule: f"must have at most {_counted(rule['max_length'], 'character')}",
    "too_short": lambda rule: f"must have at least {_counted(rule['min_length'], 'item')}",
    "too_long": lambda rule: f"must have at most {_counted(rule['max_length'], 'item')}",
    "int_type": lambda _: "must be a whole number",
    "int_from_float": lambda _: "must be a whole number",
    "int_parsing": lambda _: "must be a whole number",
    "int_parsing_size": lambda _: "is too large a number",
    "greater_than_equal": lambda rule: f"must be at least {rule['ge']}",
    "less_than_equal": lambda rule: f"must be at most {rule['le']}",
    "value_error": lambda rule: f"must be an e-mail address: {rule['reason']}",
    "bool_type": lambda _: "must be true or false",
    "uuid_type": lambda _: "must be a UUID",
    "uuid_parsing": lambda _: "must be a UUID",
    "enum": lambda rule: f"must be {rule['expected']}",
    "literal_error": lambda rule: f"must be {rule['expected']}",
    "timezone_aware": lambda _: "must have an offset: add Z or +01:00",
    "datetime_parsing": lambda _: "must be a date and time, such as 2030-06-01T18:00:00Z",
    "datetime_from_date_parsing": lambda _: "must be a date and time, such as 2030-06-01T18:00:00Z",
    "datetime_object_invalid": lambda _: "must be a date and time, such as 2030-06-01T18:00:00Z",
}
"""By the validators' names of their rules. Other rules are the service's own (`fields.broken`)."""


def refusal_of(faults: Sequence[Mapping[str, Any]]) -> httperrors.MalformedBody | httperrors.InvalidRequest:
    """The refusal of a request with these faults, of which it names the first ones."""
    if any(fault["type"] == "json_invalid" for fault in faults):
        return httperrors.MalformedBody()
    return httperrors.InvalidRequest(_named(faults[: problems.FAULTS_MAX]))


def _named(faults: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    return [
        {"field": _field(fault["loc"]), "message": _message(fault)[: problems.MESSAGE_LENGTH_MAX]} for fault in faults
    ]


def _field(place: tuple[str | int, ...]) -> str:
    """The name that the client used, cut: it may be as long as the body.

    The first part of a location is body, path, query or header, which the field's name makes clear.
    """
    return (".".join(map(str, place[1:])) or str(place[0]))[: problems.FIELD_LENGTH_MAX]


def _message(fault: Mapping[str, Any]) -> str:
    message = MESSAGES.get(fault["type"])
    return message(fault.get("ctx", {})) if message else str(fault["msg"])


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
