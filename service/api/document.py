"""The OpenAPI document: what FastAPI makes of the routes, completed for the tools that read it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic.alias_generators import to_camel

from service import errors
from service.accounts.tokens import Role
from service.api import context, faults, httperrors, manager, refusals, undeclared
from service.errors import RowlockError
from service.settings import Settings

ABOUT: Mapping[str, Any] = {
    "contact": {"name": "The operator of this server"},
    "license_info": {"name": "Apache 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
    "openapi_tags": [
        {"name": "accounts", "description": "Sign up and sign in: both return a token"},
        {"name": "customer", "description": "Sessions on sale, seat maps, holds, payments and the own reservations"},
        {"name": "manager", "description": "Sessions and what happens to them; requires the role MANAGER"},
        {"name": "operations", "description": "Probes of the process"},
    ],
}
"""Arguments of FastAPI."""

ROLES = {context.get_customer: Role.CUSTOMER, context.get_payer: Role.CUSTOMER, context.get_manager: Role.MANAGER}
"""The role that a dependency requires."""

LIMITS = {
    context.get_principal: ("account", "account_requests_per_minute"),
    context.get_payer: ("payment", "account_payments_per_minute"),
    context.limit_read: ("address", "address_requests_per_minute"),
    context.limit_sign_in: ("sign-in", "address_sign_ins_per_minute"),
}
"""The rate limit that a dependency counts, and its setting."""

UNKNOWN = "page"
"""A query parameter that no route has."""

WRONG = "x"
"""A value in a path or a query string that every number, UUID and list of words refuses."""


def complete(app: FastAPI, routes: Iterable[APIRoute], settings: Settings) -> None:
    """Names the operations, says which ones are public, and documents the refusals of each as it answers them."""
    document = app.openapi()
    named: set[str] = set()
    for route in routes:
        for method in route.methods or ():
            operation = document["paths"][route.path].get(method.lower())
            if operation is not None:
                operation["operationId"] = to_camel(route.name)
                operation.setdefault("security", [])
                named |= _document_refusals(operation["responses"], route, settings)
    document["components"]["schemas"] |= {refusals.schema_name(name): refusals.schema(name) for name in sorted(named)}


def _document_refusals(responses: dict[str, Any], route: APIRoute, settings: Settings) -> set[str]:
    """The names of the problems."""
    named: set[str] = set()
    for status, answer in responses.items():
        names = answer.get(refusals.NAMED, ())
        if names:
            responses[status] = refusals.answer(error for name in names for error in _errors(name, route, settings))
        named.update(names)
    return named


def _errors(name: str, route: APIRoute, settings: Settings) -> list[RowlockError]:
    """Errors of this type, as this route raises them."""
    kind = refusals.KINDS[name]
    calls = [dependant.call for dependant in undeclared.flat(route.dependant)]
    if kind is errors.Forbidden:
        return [errors.Forbidden(ROLES[call]) for call in calls if call in ROLES]
    if kind is errors.TooManyRequests:
        limit, setting = next(LIMITS[call] for call in reversed(calls) if call in LIMITS)
        return [errors.TooManyRequests(limit, getattr(settings, setting), 3)]
    if kind is errors.NotFound:
        return [errors.NotFound(re.findall(r"\{(\w+)Id\}", route.path)[-1])]
    if kind is httperrors.BodyTooLarge:
        return [httperrors.BodyTooLarge(_bytes_max(route, settings))]
    if kind is httperrors.InvalidRequest:
        return _invalid(route)
    found = refusals.examples_of(kind)
    return [_of_one_seat(error) for error in found] if "{seatId}" in route.path else found


def _bytes_max(route: APIRoute, settings: Settings) -> int:
    return settings.session_body_bytes_max if route.path == manager.CREATE_PATH else settings.body_bytes_max


def _invalid(route: APIRoute) -> list[RowlockError]:
    """The refusals of an empty object, or of a wrong value in the path or the query string, and of what the route does
    not declare: a query parameter, and a body.
    """
    declared = undeclared.declared_by(route)
    fields = [field for each in undeclared.flat(route.dependant) for field in (*each.path_params, *each.query_params)]
    found = [field.validate(WRONG, loc=("path", field.alias))[1] for field in fields]
    if route.body_field:
        found = [route.body_field.validate({}, loc=("body",))[1]]
    wrong = [faults.refusal_of(each) for each in found if each][:1]
    unknown = undeclared.parameter_faults(declared.parameters, f"{UNKNOWN}=1".encode())
    bodies = [] if declared.has_body else [undeclared.body_faults(b"{}", has_body=False)]
    return [*wrong, *map(undeclared.refusal_of, [unknown, *bodies])]


def _of_one_seat(error: Any) -> Any:
    seat_ids = getattr(error, "seat_ids", ())
    of_one: RowlockError = replace(error, seat_ids=seat_ids[:1]) if seat_ids else error
    return of_one
