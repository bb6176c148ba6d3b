"""A published message arrives as it was sent, whatever its size, and its properties are the driver's."""

import pytest
from amqp.basic_message import Message as DriversMessage

from dev.containers import Container
from dev.servers import RabbitMQ
from service.broker.frames import Message, publication
from service.broker.publisher import Line, drain
from tests.stage.broker import bound_queue, connected

KEY = "reservation.held.7"
TRACE = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"


def test_the_frames_are_those_of_the_driver() -> None:
    properties = {"expiration": "29000", "message_id": "12", "type": "session.created"}
    frames = publication(
        3, "", Message("", b"{}", {"traceparent": TRACE}, properties), mandatory=True, frame_bytes_max=99
    )
    drivers = DriversMessage(
        content_type="application/json", content_encoding="utf-8", delivery_mode=2,
        application_headers={"traceparent": TRACE}, **properties,
    )  # fmt: skip
    assert drivers._serialize_properties() in frames


@pytest.mark.parametrize("length", [2, 131_064, 131_065, 400_000], ids=["small", "a frame", "a byte more", "large"])
def test_a_message_arrives_whole_with_what_follows_it(rabbitmq: RabbitMQ | Container, length: int) -> None:
    body = b'"' + b"x" * (length - 2) + b'"'
    with connected(rabbitmq.url) as connection:
        queue = bound_queue(connection, "tests.frames")
        line = Line.open(connection, "rowlock.events", must_take=True)
        for part in (body, b"{}"):
            line.send(KEY, part, TRACE, message_id="5")
        drain(connection, (line,), 10)
        first, second = queue.get(no_ack=True), queue.get(no_ack=True)
    assert (line.waiting, line.refused, line.homeless) == (set(), set(), 0)
    assert (first.body.encode(), second.body) == (body, "{}")
    assert (first.delivery_info["routing_key"], first.headers) == (KEY, {"traceparent": TRACE})
    assert (first.content_type, first.properties["message_id"]) == ("application/json", "5")


def test_a_message_that_must_be_taken_comes_back_without_a_queue(rabbitmq: RabbitMQ | Container) -> None:
    with connected(rabbitmq.url) as connection:
        bound_queue(connection, "tests.frames", "reservation.paid.*")
        line = Line.open(connection, "rowlock.events", must_take=True)
        line.send(KEY, b"{}")
        drain(connection, (line,), 10)
    assert (line.homeless, line.waiting) == (1, set())
