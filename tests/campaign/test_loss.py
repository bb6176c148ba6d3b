"""A failover to an asynchronous standby loses the last commits: the checker names each acknowledged write."""

import random
from dataclasses import replace

from load.campaign.checks import check
from load.campaign.history import HOLD, PAY, RELEASE, History
from tests.campaign.simulator import Simulator

SECOND = 1_000_000


def test_each_acknowledged_write_that_is_lost_is_named() -> None:
    history = Simulator(random.Random(5)).run(300)
    lost = failed_over(history, behind_by=20)
    named = {id_ for violation in check(history) if violation.rule == "lost" for id_ in violation.operations}
    asked = [op for op in history.of(HOLD, PAY, RELEASE) if op.succeeded and op.reservation in lost]
    assert asked
    assert named == {operation.id for operation in asked}


def failed_over(history: History, behind_by: int) -> set[str]:
    """Takes the last events from the log, and with them what they wrote; returns the reservations concerned."""
    kept, gone = history.events[:-behind_by], history.events[-behind_by:]
    history.events[:] = kept
    lost = {event.reservation for event in gone if event.reservation}
    for event in reversed(gone):
        assert event.reservation is not None
        if event.kind == "reservation.held":
            del history.reservations[event.reservation]
        else:
            row = history.reservations[event.reservation]
            history.reservations[row.id] = replace(row, state="HELD", settled_at=None, paid=None)
        for change in event.changes:
            seat = history.seats[change.seat]
            history.seats[change.seat] = replace(seat, version=change.version - 1)
    return lost
