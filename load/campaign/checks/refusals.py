"""Each refusal is explained by a state within the request's time: taken, limit, expired, paid, cancelled, reused."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import inf

from load.campaign.history import HOLD, PAY, RELEASE, History, Operation
from load.campaign.timeline import AVAILABLE, HELD, Story, Timeline, Violation, at_some_moment


@dataclass(frozen=True, slots=True)
class Ledger:
    """The data for the explanations."""

    history: History
    timeline: Timeline
    of_customer: Mapping[tuple[str, int], list[Story]]
    """By customer and session."""
    by_key: Mapping[tuple[str, str], tuple[int, ...]]


Explanation = Callable[[Ledger, Operation], bool]


def check(history: History, timeline: Timeline) -> Iterator[Violation]:
    """Refusals without a reason."""
    ledger = _ledger(history, timeline)
    for operation in history.of(HOLD, PAY, RELEASE):
        if operation.problem is None or operation.problem not in EXPLANATIONS or operation.answered is None:
            continue
        if not EXPLANATIONS[operation.problem](ledger, operation):
            text = f"{operation.kind} {operation.id} was refused as {operation.problem}, which nothing explains"
            yield Violation("refusal", text, (operation.id,))
    yield from _check_unchanged(history, timeline)


def _ledger(history: History, timeline: Timeline) -> Ledger:
    of_customer: dict[tuple[str, int], list[Story]] = {}
    by_key: dict[tuple[str, str], tuple[int, ...]] = {}
    for row in history.reservations.values():
        if row.id in timeline.stories:
            of_customer.setdefault((row.customer, row.session), []).append(timeline.stories[row.id])
        if row.key is not None:
            by_key[row.customer, row.key] = row.seats
    return Ledger(history, timeline, of_customer, by_key)


def _taken(ledger: Ledger, operation: Operation) -> bool:
    """Every seat that the refusal names was asked for, and taken at some moment; an overdue hold does not count."""
    named = operation.reply["seatIds"]
    return bool(named) and all(seat in operation.seats and _was_taken(ledger, seat, operation) for seat in named)


def _was_taken(ledger: Ledger, seat: int, operation: Operation) -> bool:
    for period in at_some_moment(ledger.timeline.seats.get(seat, []), operation.invoked, operation.ended):
        if period.state == AVAILABLE or period.event is None or period.event.reservation is None:
            continue
        deadline = ledger.timeline.deadline(ledger.history, period.event.reservation)
        if period.state != HELD or deadline > operation.invoked:
            return True
    return False


def _limit(ledger: Ledger, operation: Operation) -> bool:
    """At some moment the customer's live seats of the session and the ones asked for were more than the limit."""
    begin, end = operation.invoked, operation.ended
    timeline = ledger.timeline
    mine = ledger.of_customer.get((operation.customer, operation.session), [])
    stories = [story for story in mine if story.held.at <= end]
    moments = [begin, *(story.held.at for story in stories if story.held.at >= begin)]
    return any(
        _claimed(timeline, stories, at) + len(operation.seats) > ledger.history.limits.seats_per_customer_max
        for at in moments
    )


def _claimed(timeline: Timeline, stories: list[Story], at: float) -> int:
    """Seats of holds and purchases at that moment; an end counts once it was certainly committed."""
    return sum(len(story.held.changes) for story in stories if story.held.at <= at <= _claim_ended(timeline, story))


def _claim_ended(timeline: Timeline, story: Story) -> float:
    if story.ended is None or story.ended.kind == "reservation.confirmed":
        return inf
    return timeline.known(story.ended)


def _expired(ledger: Ledger, operation: Operation) -> bool:
    """The deadline had passed, and the hold had not certainly been paid or released before."""
    story = ledger.timeline.stories.get(operation.reservation or "")
    ended = story.ended if story else None
    if ended and ended.kind != "reservation.expired" and ledger.timeline.known(ended) < operation.invoked:
        return False
    return ledger.timeline.deadline(ledger.history, operation.reservation or "") <= operation.ended


def _ended_as(kind: str) -> Explanation:
    """It had ended in this way."""

    def explained(ledger: Ledger, operation: Operation) -> bool:
        story = ledger.timeline.stories.get(operation.reservation or "")
        return (
            story is not None
            and story.ended is not None
            and story.ended.kind == kind
            and story.ended.at <= operation.ended
        )

    return explained


def _reused(ledger: Ledger, operation: Operation) -> bool:
    first = ledger.by_key.get((operation.customer, operation.key or ""))
    return first is not None and set(first) != set(operation.seats)


def _unknown_reservation(ledger: Ledger, operation: Operation) -> bool:
    row = ledger.history.reservations.get(operation.reservation or "")
    return row is None or row.customer != operation.customer


EXPLANATIONS: Mapping[str, Explanation] = {
    "seats-taken": _taken,
    "seat-limit-reached": _limit,
    "hold-expired": _expired,
    "reservation-paid": _ended_as("reservation.confirmed"),
    "reservation-cancelled": _ended_as("reservation.cancelled"),
    "idempotency-key-reused": _reused,
    "not-found": _unknown_reservation,
}


def _check_unchanged(history: History, timeline: Timeline) -> Iterator[Violation]:
    """A payment or release that promises that nothing was changed, where it is the only one that was asked for."""
    asked: dict[tuple[str, str], list[Operation]] = {}
    for operation in history.of(PAY, RELEASE):
        asked.setdefault((operation.reservation or "", operation.kind), []).append(operation)
    kinds = {PAY: "reservation.confirmed", RELEASE: "reservation.cancelled"}
    for (id_, kind), operations in asked.items():
        story = timeline.stories.get(id_)
        ended = story.ended if story else None
        if ended and ended.kind == kinds[kind] and all(operation.changed_nothing for operation in operations):
            text = f"{kind} of {id_} was refused each time, and done"
            yield Violation("refusal", text, tuple(operation.id for operation in operations), (ended.id,))
