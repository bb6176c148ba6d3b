"""Every event got a number and was published; the numbers have no gap, and agree with the order along each seat."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from load.campaign.history import Event, History
from load.campaign.timeline import Timeline, Violation


def check(history: History, timeline: Timeline) -> Iterator[Violation]:
    """The whole log, and the events of each seat."""
    for event in history.events:
        if event.number is None:
            yield Violation("unpublished", f"event {event.id} has no number", (), (event.id,))
        elif history.published is not None and event.number not in history.published:
            yield Violation("unpublished", f"event {event.id} (number {event.number}) never came", (), (event.id,))
    numbered = sorted((event.number, event.id) for event in history.events if event.number is not None)
    for (first, first_id), (second, second_id) in pairwise(numbered):
        if second != first + 1:
            yield Violation("log", f"event number {first} is followed by {second}", (), (first_id, second_id))
    for seat, periods in timeline.seats.items():
        yield from _check_seat(seat, [period.event for period in periods if period.event is not None])


def _check_seat(seat: int, events: Sequence[Event]) -> Iterator[Violation]:
    """The events of one seat, in the order of its versions."""
    for first, second in pairwise(events):
        if first.number is not None and second.number is not None and second.number <= first.number:
            text = f"seat {seat}: event {second.id} (number {second.number}) came after number {first.number}"
            yield Violation("log", text, (), (first.id, second.id))
