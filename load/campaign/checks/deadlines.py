"""Each hold has its whole time to pay, and after the faults every overdue one ends within the stated bound."""

from collections.abc import Iterator

from load.campaign.history import Fault, History, Reservation
from load.campaign.timeline import Story, Timeline, Violation


def check(history: History, timeline: Timeline) -> Iterator[Violation]:
    """Holds that ended too late, and holds that have not ended at all. `replay` finds the ones that ended early."""
    bound = int(history.limits.late_seconds_max * 1_000_000)
    for row in history.reservations.values():
        story = timeline.stories.get(row.id)
        yield from _check_time_to_pay(history, row, story)
        if row.state == "HELD":
            text = f"{row.id} is held, {len(row.seats)} seats, after the end of the campaign"
            yield Violation("overdue", text, (), (story.held.id,) if story else ())
        if story is None or story.ended is None or story.ended.kind != "reservation.expired":
            continue
        due = calm_since(history.faults, row.expires_at, bound)
        if story.ended.at > due + bound:
            text = f"{row.id} expired {(story.ended.at - due) / 1e6:.1f} s after its deadline and the last fault"
            yield Violation("overdue", text, (), (story.ended.id,))


def _check_time_to_pay(history: History, row: Reservation, story: Story | None) -> Iterator[Violation]:
    """The deadline counts from the hold by the same clock, whatever that clock says."""
    seconds = (row.expires_at - row.created_at) / 1_000_000
    if seconds != history.limits.hold_seconds:
        text = f"{row.id} has {seconds} s to pay instead of {history.limits.hold_seconds} s"
        yield Violation("clock", text, (), (story.held.id,) if story else ())


def calm_since(faults: list[Fault], deadline: int, bound: int) -> int:
    """When the deadline had passed and no fault had been under way for the bound, at the earliest."""
    due = deadline
    for fault in sorted(faults, key=lambda fault: fault.began):
        if fault.began <= due + bound:
            due = max(due, fault.ended)
    return due
