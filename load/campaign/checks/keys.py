"""An idempotency key is remembered: once its hold is certain, a repetition gets the stored reply and no refusal."""

from collections.abc import Iterator
from math import inf

from load.campaign.history import HOLD, UNCHANGED, History, Operation
from load.campaign.timeline import Timeline, Violation

Question = tuple[str, str, frozenset[int]]
"""A customer, a key, and the seats."""


def check(history: History, timeline: Timeline) -> Iterator[Violation]:
    """Refused repetitions of a hold that had been committed, or acknowledged, before they were sent."""
    certain = _certain(history, timeline)
    for operation in history.of(HOLD):
        if not operation.changed_nothing or operation.problem in UNCHANGED or operation.key is None:
            continue
        if certain.get(_question(operation, operation.key), inf) < operation.invoked:
            text = f"hold {operation.id} repeats key {operation.key}, and was refused as {operation.problem}"
            yield Violation("refusal", text, (operation.id,))


def _certain(history: History, timeline: Timeline) -> dict[Question, float]:
    """Since when a hold was certainly made: it was answered, or its seats were locked again."""
    found: dict[Question, float] = {}
    for row in history.reservations.values():
        if row.key is not None and row.id in timeline.stories:
            known = timeline.known(timeline.stories[row.id].held)
            found[row.customer, row.key, frozenset(row.seats)] = known
    for operation in history.of(HOLD):
        if operation.succeeded and operation.key is not None:
            question = _question(operation, operation.key)
            found[question] = min(found.get(question, inf), operation.ended)
    return found


def _question(operation: Operation, key: str) -> Question:
    return operation.customer, key, frozenset(operation.seats)
