"""The checker's rules, a file a subject. Each takes a history and its timeline and yields violations."""

from collections.abc import Iterator

from load.campaign.checks import (
    answers,
    deadlines,
    histories,
    keys,
    ledger,
    maps,
    order,
    outcomes,
    publishing,
    refusals,
)
from load.campaign.history import History
from load.campaign.timeline import Violation, replay


def check(history: History) -> list[Violation]:
    """All violations; an empty list is the proof."""
    return list(_check(history))


def _check(history: History) -> Iterator[Violation]:
    timeline = replay(history)
    yield from timeline.violations
    for rules in (ledger, answers, outcomes, order, refusals, keys, deadlines, maps, histories, publishing):
        yield from rules.check(history, timeline)
