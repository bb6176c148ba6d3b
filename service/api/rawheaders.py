"""A request's headers as ASGI has them: bytes, with names in lower case."""

from collections.abc import Mapping

from starlette.types import Scope


def first_of_each(scope: Scope) -> Mapping[bytes, bytes]:
    """The headers by name. The first of several with one name counts, as in Starlette."""
    return dict(reversed(scope["headers"]))
