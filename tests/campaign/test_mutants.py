"""Each mutant of the product still applies: its line is there."""

import pytest

from load.campaign.faults import kinds
from load.campaign.mutants import MUTANTS, ROOT, Mutant, is_found, mutated


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_its_file(mutant: Mutant) -> None:
    text = (ROOT / mutant.file).read_text()
    changed = mutated(mutant, text)
    assert changed != text
    if mutant.file.endswith(".py"):
        compile(changed, mutant.file, "exec")
    assert kinds(mutant.faults) or mutant.faults == "none"


def test_a_mutant_without_its_line_is_refused() -> None:
    with pytest.raises(ValueError, match="does not have the line"):
        mutated(MUTANTS[0], "")


def test_a_mutant_is_found_only_by_a_rule_that_it_names() -> None:
    mutant = next(mutant for mutant in MUTANTS if mutant.name == "a hold does not lock its customer")
    assert is_found(mutant, {"limit": 1, "refusal": 2})
    assert not is_found(mutant, {"unanswered": 3})
