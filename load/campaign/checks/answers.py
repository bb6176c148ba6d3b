"""Each acknowledged write is in the log once, with the acknowledged content; each entry belongs to a request."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime

from load.campaign.history import HOLD, PAY, RELEASE, UNCHANGED, WRITES, History, Operation, Reservation
from load.campaign.timeline import Timeline, Violation

END_OF = {PAY: "reservation.confirmed", RELEASE: "reservation.cancelled"}


def check(history: History, timeline: Timeline) -> Iterator[Violation]:
    """Acknowledged holds, acknowledged ends, reservations without a request, and errors that must not be."""
    for text in history.defects:
        yield Violation("defect", text)
    for operation in history.of(HOLD):
        if operation.succeeded:
            yield from _check_hold(history, timeline, operation)
    for operation in history.of(PAY, RELEASE):
        if operation.succeeded:
            yield from _check_end(history, timeline, operation)
    yield from _check_replies(history)
    yield from _check_requests(history, timeline)
    for operation in unresolved(history):
        text = f"the outcome of {operation.kind} {operation.id} is unknown, and no repetition has resolved it"
        yield Violation("unresolved", text, (operation.id,))


def unresolved(history: History) -> Iterator[Operation]:
    """The writes with an unknown outcome that were not repeated later with a known one."""
    known: dict[tuple[object, ...], int] = {}
    for operation in history.of(*WRITES):
        if not operation.is_unknown and operation.problem not in UNCHANGED:
            known[operation.question] = max(known.get(operation.question, 0), operation.invoked)
    for operation in history.of(*WRITES):
        if operation.is_unknown and known.get(operation.question, 0) <= operation.invoked:
            yield operation


def _check_hold(history: History, timeline: Timeline, operation: Operation) -> Iterator[Violation]:
    row = history.reservations.get(operation.reservation or "")
    if row is None or row.id not in timeline.stories:
        text = f"hold {operation.reservation} was acknowledged and is lost"
        yield Violation("lost", text, (operation.id,))
        return
    reply = operation.reply
    told = (
        set(operation.seats),
        {seat["seatId"] for seat in reply["seats"]},
        reply["total"],
        _microseconds(reply["expiresAt"]),
        operation.customer,
    )
    if told != (set(row.seats), set(row.seats), row.total, row.expires_at, row.customer):
        text = f"hold {row.id} was acknowledged with other content than the ledger's"
        yield Violation("content", text, (operation.id,), (timeline.stories[row.id].held.id,))


def _check_end(history: History, timeline: Timeline, operation: Operation) -> Iterator[Violation]:
    row = history.reservations.get(operation.reservation or "")
    if row is not None and row.customer != operation.customer:
        text = f"{operation.kind} of {row.id} was granted to another customer than its own"
        yield Violation("content", text, (operation.id,))
    story = timeline.stories.get(operation.reservation or "")
    if story is None or story.ended is None or story.ended.kind != END_OF[operation.kind]:
        text = f"{operation.kind} of {operation.reservation} was acknowledged and is lost"
        yield Violation("lost", text, (operation.id,), (story.ended.id,) if story and story.ended else ())
    elif _microseconds(operation.reply["settledAt"]) != story.ended.at:
        text = f"{operation.kind} of {operation.reservation} was acknowledged with another time"
        yield Violation("content", text, (operation.id,), (story.ended.id,))


def _check_replies(history: History) -> Iterator[Violation]:
    """The same key has the same reply, byte for byte, and it is the stored one."""
    for operation in history.of(HOLD):
        row = history.reservations.get(operation.reservation or "")
        if operation.succeeded and row is not None and operation.body != row.reply:
            text = f"hold {row.id} was answered with other bytes than its stored reply"
            yield Violation("replay", text, (operation.id,))
        if operation.succeeded and row is not None and operation.key != row.key:
            yield Violation("replay", f"hold {row.id} belongs to another key", (operation.id,))


def _check_requests(history: History, timeline: Timeline) -> Iterator[Violation]:
    """Every reservation and every end in the log was asked for, by a request that may have made it."""
    yield from _check_keyless(history)
    holds = _by_key(history)
    ends: dict[tuple[str, str], list[Operation]] = {}
    for operation in history.of(PAY, RELEASE):
        ends.setdefault((operation.reservation or "", END_OF[operation.kind]), []).append(operation)
    for row in history.reservations.values():
        story = timeline.stories.get(row.id)
        asked = holds.get((row.customer, row.key), [])
        if row.key is not None and not any(_may_have_made(operation, row) for operation in asked):
            held = (story.held.id,) if story else ()
            yield Violation("unasked", f"reservation {row.id} (key {row.key}) was made by no request", (), held)
        if story is None or story.ended is None or story.ended.kind not in END_OF.values():
            continue
        asked = ends.get((row.id, story.ended.kind), [])
        at = story.ended.at
        if not any(op.customer == row.customer and op.invoked <= at and not op.changed_nothing for op in asked):
            text = f"{story.ended.kind} of {row.id} was made by no request"
            yield Violation("unasked", text, tuple(op.id for op in asked), (story.ended.id,))


def _by_key(history: History) -> dict[tuple[str, str | None], list[Operation]]:
    """The holds by customer and key."""
    found: dict[tuple[str, str | None], list[Operation]] = {}
    for operation in history.of(HOLD):
        found.setdefault((operation.customer, operation.key), []).append(operation)
    return found


def _may_have_made(operation: Operation, row: Reservation) -> bool:
    return (
        operation.customer == row.customer
        and set(operation.seats) == set(row.seats)
        and operation.invoked <= row.created_at <= operation.ended
        and not operation.changed_nothing
    )


def _check_keyless(history: History) -> Iterator[Violation]:
    """Holds without a key: no more of the same customer and seats than requests that may have made them."""
    asked: Counter[tuple[str, tuple[int, ...]]] = Counter()
    for operation in history.of(HOLD):
        if operation.key is None and not operation.changed_nothing:
            asked[operation.customer, tuple(sorted(operation.seats))] += 1
    made = Counter((row.customer, tuple(sorted(row.seats))) for row in history.reservations.values() if row.key is None)
    for (customer, seats), count in made.items():
        if count > asked[customer, seats]:
            yield Violation(
                "unasked", f"{count} holds of {seats} by {customer}, asked for {asked[customer, seats]} times"
            )


def _microseconds(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond
