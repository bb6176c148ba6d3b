"""The shortest part of a history still shows its violation, and little else."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from load.campaign import history as histories
from load.campaign.checks import check
from load.campaign.history import HOLD, History, Operation
from load.campaign.mutators import MUTATORS, Mutator
from load.campaign.mutators.picking import an_operation, put_operation
from load.campaign.reduction import reduced
from load.campaign.report import shortest
from load.campaign.timeline import Violation
from tests.campaign.simulator import Simulator

WITHOUT_ROWS = {"unpaid_seat", "doubled_payment", "deadlocked", "not_quiet", "unread_map", "unread_list"}
"""They may break a sum or a count only, which no row shows."""


def spoiled(mutator: Mutator, seed: int = 0) -> tuple[History, list[Violation]]:
    """A history with the damage, and the violations of its rule."""
    history = Simulator(random.Random(seed)).run(600)
    rule = mutator(history, random.Random(seed))
    return history, [violation for violation in check(history) if violation.rule == rule]


@pytest.mark.parametrize("mutator", MUTATORS, ids=lambda mutator: mutator.__name__)
def test_the_shortest_part_shows_the_violation(mutator: Mutator, tmp_path: Path) -> None:
    history, violations = spoiled(mutator)
    parts = [(violation, part) for violation in violations if (part := reduced(history, violation, 2.0))]
    assert parts or mutator.__name__ in WITHOUT_ROWS
    for violation, part in parts[:1]:
        histories.write(tmp_path / "part.jsonl", part)
        found = check(histories.read(tmp_path / "part.jsonl"))
        assert (violation.rule, violation.text) in {(other.rule, other.text) for other in found}
        assert len(part.operations) + len(part.events) < (len(history.operations) + len(history.events)) / 4


def test_a_second_owner_is_shown_by_the_two_holds() -> None:
    history, violations = spoiled(next(mutator for mutator in MUTATORS if mutator.__name__ == "second_owner"))
    violation = next(violation for violation in violations if violation.rule == "owner")
    part = reduced(history, violation)
    assert part is not None
    assert {event.id for event in part.events} >= set(violation.events)
    assert len(part.events) <= 4


def test_a_refusal_keeps_the_last_change_of_its_seat() -> None:
    history, operation = _refused_on_a_free_seat()
    (violation,) = [v for v in check(history) if v.rule == "refusal" and operation.id in v.operations]
    part = reduced(history, violation)
    assert part is not None
    assert [op.id for op in part.operations] == [operation.id]
    assert [event.kind for event in part.events][-1] == "reservation.expired"


def _refused_on_a_free_seat() -> tuple[History, Operation]:
    """A history in whose end a hold is refused although its only seat has been free for a while."""
    history = Simulator(random.Random(3)).run(400)
    expired = [event for event in history.events if event.kind == "reservation.expired"][-1]
    seat = expired.changes[0].seat
    at = max(event.at for event in history.events) + 1_000_000
    first = an_operation(history, random.Random(3), HOLD, "seats-taken")
    refused = replace(first, seats=(seat,), body=f'{{"seatIds": [{seat}]}}', invoked=at, answered=at + 1_000)
    put_operation(history, refused)
    return history, refused


def test_a_wrong_sum_has_no_shorter_part() -> None:
    history = Simulator(random.Random(1)).run(50)
    assert reduced(history, Violation("money", "1 minor units were paid, the sold seats cost 2")) is None


def test_time_ends_the_reduction() -> None:
    history, violations = spoiled(MUTATORS[0])
    part = reduced(history, violations[0], seconds_max=0.0)
    assert part is not None
    assert len(part.operations) == len(history.operations)


def test_the_shortest_part_is_printed_in_the_order_of_time() -> None:
    history, violations = spoiled(next(mutator for mutator in MUTATORS if mutator.__name__ == "second_owner"))
    part = reduced(history, violations[0])
    assert part is not None
    lines = shortest(violations[0], part).splitlines()
    assert violations[0].text in lines[0]
    assert len(lines) == 1 + len(part.operations) + len(part.events)
