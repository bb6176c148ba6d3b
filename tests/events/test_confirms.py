"""What RabbitMQ's answers mean for the messages of a channel, in whatever order they come."""

from service.broker.publisher import Line


def line_of(count: int) -> Line:
    """This many messages wait for an answer."""
    return Line(channel=None, exchange="rowlock.events", must_take=False, waiting=set(range(1, count + 1)))


def test_single_confirm_does_not_cover_earlier_messages() -> None:
    line = line_of(4)
    line.accept(3, multiple=False)
    assert line.waiting == {1, 2, 4}
    line.refuse(2, multiple=False)
    assert (line.waiting, line.refused) == ({1, 4}, {2})


def test_an_answer_for_several_is_for_all_up_to_it_that_had_none() -> None:
    line = line_of(4)
    line.accept(1, multiple=False)
    line.refuse(3, multiple=True)
    assert (line.waiting, line.refused) == ({4}, {2, 3})
    line.accept(4, multiple=True)
    assert (line.waiting, line.refused) == (set(), {2, 3})
