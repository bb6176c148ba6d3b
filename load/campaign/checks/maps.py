"""A seat map shows no state that no moment of its stated age had; the last ones equal the ledger, counts included."""

from collections.abc import Iterator, Sequence

from load.campaign.history import LIST, MAP, History, Operation
from load.campaign.timeline import Period, Timeline, Violation

QUIET_MICROSECONDS = 1_000_000
NAMES = {"available": "A", "held": "H", "sold": "S"}
LETTERS = {"AVAILABLE": "A", "HELD": "H", "SOLD": "S"}


def check(history: History, timeline: Timeline) -> Iterator[Violation]:
    """Each map, and the last map and list of each session."""
    by_session: dict[int, list[int]] = {}
    for seat in sorted(history.seats.values(), key=lambda seat: seat.position):
        by_session.setdefault(seat.session, []).append(seat.id)
    for operation in history.of(MAP):
        if operation.succeeded and operation.session not in by_session:
            text = f"session {operation.session}, whose map {operation.id} was read, is lost"
            yield Violation("lost", text, (operation.id,))
        elif operation.succeeded:
            yield from _check_map(timeline, by_session[operation.session], operation)
    yield from _check_last(history, by_session)


def _check_map(timeline: Timeline, seats: Sequence[int], operation: Operation) -> Iterator[Violation]:
    letters = operation.body or ""
    if len(letters) != len(seats):
        yield Violation("map", f"map {operation.id} has {len(letters)} of {len(seats)} seats", (operation.id,))
        return
    assert operation.as_of is not None
    for seat, letter in zip(seats, letters, strict=True):
        if letter not in possible(timeline.seats[seat], operation.as_of, operation.ended):
            text = f"map {operation.id} shows seat {seat} as {letter}, which it was not at {operation.as_of} or later"
            yield Violation("map", text, (operation.id,), seats=(seat,))


def possible(periods: Sequence[Period], as_of: float, read: float) -> set[str]:
    """The letters that a map may show: every state that had begun when it was read, and that no change had certainly
    ended by `as_of`.
    """
    found = set()
    for period, later in zip(periods, [*periods[1:], None], strict=True):
        if period.began <= read and not (later is not None and later.known <= as_of):
            found.add(LETTERS[period.state])
    return found


def _check_last(history: History, by_session: dict[int, list[int]]) -> Iterator[Violation]:
    """The campaign's last reads, which it makes when all has been quiet for a second."""
    quiet = max((event.at for event in history.events), default=0) + QUIET_MICROSECONDS
    reads = [operation for operation in history.operations if operation.succeeded and operation.invoked > quiet]
    last = {operation.session: operation for operation in reads if operation.kind == MAP}
    listed = {operation.session: operation for operation in reads if operation.kind == LIST}
    for session in history.on_sale:
        for name, found in (("map", last), ("list", listed)):
            if session not in found:
                yield Violation("map", f"the last {name} of session {session} could not be read")
    for session, seats in by_session.items():
        letters = "".join(LETTERS[history.seats[seat].state] for seat in seats)
        if session in last and last[session].body != letters:
            yield Violation("map", f"the last map of session {session} is not the ledger's", (last[session].id,))
        if session in listed:
            counts = {name: letters.count(letter) for name, letter in NAMES.items()}
            if listed[session].reply != counts:
                text = f"the last list counts {listed[session].reply} in session {session}, the ledger {counts}"
                yield Violation("map", text, (listed[session].id,))
