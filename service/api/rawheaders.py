"""A request as ASGI has it: headers are bytes, with names in lower case, and the body comes in messages."""

from collections.abc import Iterable, Mapping

from starlette.types import Message, Receive, Scope

LISTS = (b"accept-encoding", b"if-none-match")
"""The headers of this kind that the API reads, but for X-Forwarded-For, which only `context` reads."""


def first_of_each(scope: Scope) -> Mapping[bytes, bytes]:
    """The headers by name. The first of several with one name counts, as in Starlette."""
    return dict(reversed(scope["headers"]))


def join_lists(scope: Scope) -> None:
    """Makes one line of several lines of a header that is a list (RFC 9110, 5.3)."""
    lines = scope["headers"]
    if len(dict(lines)) == len(lines):
        return
    joined = [(each, b", ".join(value for name, value in lines if name == each)) for each in LISTS]
    scope["headers"] = [line for line in lines if line[0] not in LISTS] + [line for line in joined if line[1]]


def again(messages: Iterable[Message], receive: Receive) -> Receive:
    """Gives the messages that were received already, and then those that follow."""
    left = iter(messages)

    async def receive_again() -> Message:
        message = next(left, None)
        return await receive() if message is None else message

    return receive_again
