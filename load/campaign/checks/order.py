"""Real time: where one request had ended before another began, their order in the log agrees for each shared seat."""

from collections.abc import Iterator

from load.campaign.history import HOLD, PAY, RELEASE, History, Operation
from load.campaign.timeline import Timeline, Violation

KIND_OF = {HOLD: "reservation.held", PAY: "reservation.confirmed", RELEASE: "reservation.cancelled"}


def check(history: History, timeline: Timeline) -> Iterator[Violation]:
    """For each seat its events by version: none may have been answered before an earlier one was asked for."""
    made = _first_acknowledged(history)
    for seat, periods in timeline.seats.items():
        latest: Operation | None = None
        for period in periods:
            if period.event is None or period.event.reservation is None:
                continue
            operation = made.get((period.event.reservation, period.event.kind))
            if operation is None:
                continue
            if latest is not None and operation.answered is not None and operation.answered < latest.invoked:
                text = (
                    f"seat {seat}: operation {operation.id} had ended before {latest.id} began, and is later in the log"
                )
                yield Violation("order", text, (latest.id, operation.id), (period.event.id,))
            if latest is None or operation.invoked > latest.invoked:
                latest = operation


def _first_acknowledged(history: History) -> dict[tuple[str, str], Operation]:
    """The first answer that acknowledged an event; a replay comes later and proves nothing about the order.

    Its request is the earliest one that may have made the event: one with the same key or reservation may have been
    sent before and lost its answer.
    """
    first: dict[tuple[str, str], Operation] = {}
    for operation in history.of(*KIND_OF):
        if not operation.succeeded or operation.reservation is None:
            continue
        at = (operation.reservation, KIND_OF[operation.kind])
        if at not in first or (operation.answered or 0) < (first[at].answered or 0):
            first[at] = operation
    return {at: operation for at, operation in first.items() if _made_it(history, operation)}


def _made_it(history: History, operation: Operation) -> bool:
    """Whether the event happened within this request, by PostgreSQL's clock."""
    row = history.reservations.get(operation.reservation or "")
    if row is None:
        return False
    at = row.created_at if operation.kind == HOLD else row.settled_at
    return at is not None and operation.invoked <= at <= operation.ended
