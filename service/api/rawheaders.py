"""A request as ASGI has it: headers are bytes, with names in lower case, and the body comes in messages."""

from collections.abc import Iterable, Mapping

from starlette.types import Message, Receive, Scope


def first_of_each(scope: Scope) -> Mapping[bytes, bytes]:
    """The headers by name. The first of several with one name counts, as in Starlette."""
    return dict(reversed(scope["headers"]))


def again(messages: Iterable[Message], receive: Receive) -> Receive:
    """Gives the messages that were received already, and then those that follow."""
    left = iter(messages)

    async def receive_again() -> Message:
        message = next(left, None)
        return await receive() if message is None else message

    return receive_again
