"""A customer's history shows each reservation in a state that it had during the request, and misses none."""

from collections.abc import Iterator

from load.campaign.history import HISTORY, HOLD, History, Operation
from load.campaign.timeline import STATE_AFTER, Timeline, Violation

PAGE = 20


def check(history: History, timeline: Timeline) -> Iterator[Violation]:
    """Every page that was read."""
    acknowledged: dict[str, list[Operation]] = {}
    for operation in history.of(HOLD):
        if operation.succeeded and not operation.replayed:
            acknowledged.setdefault(operation.customer, []).append(operation)
    for operation in history.of(HISTORY):
        if operation.succeeded:
            yield from _check_page(history, timeline, operation, acknowledged.get(operation.customer, []))


def _check_page(
    history: History, timeline: Timeline, operation: Operation, holds: list[Operation]
) -> Iterator[Violation]:
    shown: dict[str, str] = operation.reply
    for id_, state in shown.items():
        if state not in _possible(timeline, id_, operation):
            text = f"history {operation.id} shows {id_} as {state}, which it was not at that time"
            yield Violation("history", text, (operation.id,))
    oldest = min(shown) if len(shown) >= PAGE else ""
    for hold in holds:
        is_missing = hold.reservation not in shown and (hold.reservation or "") > oldest
        if is_missing and hold.ended < operation.invoked and hold.reservation in history.reservations:
            text = f"history {operation.id} misses {hold.reservation}, which had been acknowledged"
            yield Violation("history", text, (operation.id, hold.id))


def _possible(timeline: Timeline, id_: str, operation: Operation) -> set[str]:
    """The states between the moments of the request; an end counts as possible from its clock reading on."""
    story = timeline.stories.get(id_)
    if story is None or story.held.at > operation.ended:
        return set()
    if story.ended is None or story.ended.at > operation.ended:
        return {"HELD"}
    is_open = timeline.known(story.ended) >= operation.invoked
    return {STATE_AFTER[story.ended.kind]} | ({"HELD"} if is_open else set())
