"""Large answers share their bytes, and those that are being sent have a bound."""

import pytest
from starlette.types import Message

from service.api.largebody import LargeBodies, Shared
from service.errors import Busy

REST = b"]}"


async def refuse() -> Message:
    """Nothing is received."""
    raise AssertionError


async def test_the_shared_part_is_never_copied() -> None:
    first, sent = b"x" * 10, list[Message]()

    async def send(message: Message) -> None:
        sent.append(message)

    await Shared(LargeBodies(), first, REST, {"ETag": "1"})({}, refuse, send)
    assert [part["body"] is first for part in sent[1:]] == [True, False]
    assert b"".join(part["body"] for part in sent[1:]) == first + REST
    headers = dict(sent[0]["headers"])
    assert (headers[b"content-length"], headers[b"etag"]) == (b"12", b"1")
    assert [part.get("more_body", False) for part in sent[1:]] == [True, False]


async def test_a_body_counts_once_for_all_its_answers() -> None:
    bodies, body = LargeBodies(10), b"x" * 10
    for _ in range(3):
        bodies.enter(body)
    with pytest.raises(Busy):
        bodies.enter(b"y")
    for _ in range(2):
        bodies.leave(body)
    with pytest.raises(Busy):
        bodies.enter(b"y")
    bodies.leave(body)
    bodies.enter(b"y")


async def test_an_answer_whose_client_is_gone_counts_no_more() -> None:
    bodies = LargeBodies(10)

    async def send(_message: Message) -> None:
        raise ConnectionResetError

    answer = Shared(bodies, b"x" * 10, REST, {})
    with pytest.raises(Busy):
        bodies.enter(b"y")
    with pytest.raises(ConnectionResetError):
        await answer({}, refuse, send)
    bodies.enter(b"y")
