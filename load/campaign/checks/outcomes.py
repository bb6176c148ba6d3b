"""Each request gets an answer, and one that fits it: the clients are signed in and ask only for what exists."""

from collections.abc import Iterator, Mapping

from load.campaign.history import HISTORY, HOLD, LIST, MAP, PAY, RELEASE, UNCHANGED, History, Operation
from load.campaign.timeline import Timeline, Violation

UNKNOWN = "outcome-unknown"
ALLOWED: Mapping[str, set[str]] = {
    HOLD: {*UNCHANGED, UNKNOWN, "seats-taken", "seat-limit-reached", "idempotency-key-reused"},
    PAY: {*UNCHANGED, UNKNOWN, "hold-expired", "reservation-cancelled", "not-found"},
    RELEASE: {*UNCHANGED, UNKNOWN, "hold-expired", "reservation-paid", "not-found"},
    MAP: UNCHANGED,
    LIST: UNCHANGED,
    HISTORY: UNCHANGED,
}
"""The problems that a kind of request may be answered with. `refusals` asks whether one is true."""


def check(history: History, _timeline: Timeline) -> Iterator[Violation]:
    """Missing answers, and problems that the request can't have."""
    for operation in history.operations:
        name = f"{operation.kind} {operation.id}"
        if operation.status is None and not operation.hang_up and not _is_excused(history, operation):
            yield Violation("unanswered", f"{name} got no answer, and no fault was near", (operation.id,))
        if operation.problem == "internal-error":
            yield Violation("defect", f"{name} was answered 500", (operation.id,))
        elif operation.problem is not None and operation.problem not in ALLOWED[operation.kind]:
            yield Violation("refusal", f"{name} can't be refused as {operation.problem}", (operation.id,))


def _is_excused(history: History, operation: Operation) -> bool:
    """Whether a fault was under way or had just ended while the client waited."""
    given_up = operation.invoked + history.limits.answer_seconds_max * 1_000_000
    calm = history.limits.late_seconds_max * 1_000_000
    return any(fault.began <= given_up and operation.invoked <= fault.ended + calm for fault in history.faults)
