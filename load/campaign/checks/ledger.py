"""The tables in the end: they are what the log says, money equals sold seats, and the self-audit agrees.

Also: no customer exceeded the limit, and no deadlock happened.
"""

from collections.abc import Iterator

from load.campaign.history import History, Reservation
from load.campaign.timeline import SOLD, STATE_AFTER, Timeline, Violation


def check(history: History, timeline: Timeline) -> Iterator[Violation]:
    """Compares each seat, each reservation and the sums."""
    yield from _check_seats(history, timeline)
    for reservation in history.reservations.values():
        yield from _check_reservation(history, timeline, reservation)
    for id_ in timeline.stories.keys() - history.reservations.keys():
        held = timeline.stories[id_].held
        yield Violation("ledger", f"{id_} is in the log and not in the table", (), (held.id,))
    paid = sum(reservation.paid or 0 for reservation in history.reservations.values())
    sold = sum(seat.price for seat in history.seats.values() if seat.state == SOLD)
    if paid != sold:
        yield Violation("money", f"{paid} minor units were paid, the sold seats cost {sold}")
    for found in history.audit:
        yield Violation("audit", found)
    yield from _check_limit(history)
    if history.deadlocks:
        yield Violation("deadlock", f"PostgreSQL ended {history.deadlocks} deadlocks: the lock order was broken")


def _check_limit(history: History) -> Iterator[Violation]:
    """After each hold, in the order of the log, the customer's live seats of the session are within the limit."""
    live: dict[tuple[str, int], dict[str, int]] = {}
    for event in history.events:
        row = history.reservations.get(event.reservation or "")
        if row is None:
            continue
        seats = live.setdefault((row.customer, row.session), {})
        if event.kind == "reservation.held":
            seats[row.id] = len(event.changes)
            if sum(seats.values()) > history.limits.seats_per_customer_max:
                text = f"{row.customer} has {sum(seats.values())} seats of session {row.session}"
                yield Violation("limit", text, (), (event.id,))
        elif event.kind != "reservation.confirmed":
            seats.pop(row.id, None)


def _check_seats(history: History, timeline: Timeline) -> Iterator[Violation]:
    for seat in history.seats.values():
        last = timeline.seats[seat.id][-1]
        owner = last.event.reservation if last.event and last.state != "AVAILABLE" else None
        if (seat.state, seat.version, seat.reservation) != (last.state, last.version, owner):
            text = (
                f"seat {seat.id} is {seat.state} {seat.version} {seat.reservation},"
                f" the log says {last.state} {last.version} {owner}"
            )
            yield Violation("ledger", text, (), (last.event.id,) if last.event else ())


def _check_reservation(history: History, timeline: Timeline, row: Reservation) -> Iterator[Violation]:
    story = timeline.stories.get(row.id)
    if story is None:
        yield Violation("ledger", f"reservation {row.id} is not in the log")
        return
    last = story.ended or story.held
    if row.state != STATE_AFTER[last.kind]:
        yield Violation("ledger", f"{row.id} is {row.state}, the log says {last.kind}", (), (last.id,))
    if set(row.seats) != {change.seat for change in story.held.changes}:
        yield Violation("ledger", f"{row.id} has other seats than its event", (), (story.held.id,))
    if row.created_at != story.held.at or (story.ended and row.settled_at != story.ended.at):
        yield Violation("ledger", f"the times of {row.id} are not those of its events", (), (last.id,))
    price = sum(history.seats[seat].price for seat in row.seats if seat in history.seats)
    if row.total != price or row.paid != (price if row.state == "CONFIRMED" else None):
        text = f"{row.id} ({row.state}) costs {price}, its total is {row.total}, paid {row.paid}"
        yield Violation("money", text, (), (last.id,))
