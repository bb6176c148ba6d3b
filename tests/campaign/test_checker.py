"""The checker finds nothing in good histories, and each kind of damage in spoiled ones."""

import random
from pathlib import Path

import pytest

from load.campaign import history as histories
from load.campaign.checks import check
from load.campaign.mutators import MUTATORS, Mutator
from tests.campaign.simulator import Simulator


@pytest.mark.parametrize("seed", range(12))
def test_a_good_history_has_no_violation(seed: int) -> None:
    history = Simulator(random.Random(seed)).run(400)
    kinds = {(operation.kind, operation.problem) for operation in history.operations}
    assert len(kinds) >= 9
    assert check(history) == []


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    history = Simulator(random.Random(1)).run(50)
    histories.write(tmp_path / "history.jsonl", history)
    assert histories.read(tmp_path / "history.jsonl") == history


@pytest.mark.parametrize("mutator", MUTATORS, ids=lambda mutator: mutator.__name__)
@pytest.mark.parametrize("seed", range(3))
def test_each_damage_is_found_by_its_rule(mutator: Mutator, seed: int) -> None:
    history = Simulator(random.Random(seed)).run(600)
    rule = mutator(history, random.Random(seed))
    assert rule in {violation.rule for violation in check(history)}
