"""The plan of a campaign: which fault begins when, and how long it lasts. The same seed makes the same plan."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

QUIET_SECONDS = 2.0
"""Before the first fault, so that there is something to lose."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault that begins `at` seconds after the start and lasts `seconds`; `seed` decides on its target."""

    kind: str
    at: float
    seconds: float
    seed: int


def plan(seed: int, seconds: float, kinds: Sequence[str], *, every_seconds: float) -> list[Planned]:
    """Faults until shortly before the end, about `every_seconds` apart, so that some overlap. Each kind comes round."""
    chance = random.Random(f"faults {seed}")
    planned: list[Planned] = []
    waiting: list[str] = []
    at = QUIET_SECONDS
    while kinds and at < seconds - QUIET_SECONDS:
        if not waiting:
            waiting = chance.sample(list(kinds), len(kinds))
        planned.append(Planned(waiting.pop(), at, chance.uniform(0.2, 2.5), chance.randrange(2**32)))
        at += chance.uniform(0.3, 1.7) * every_seconds
    return planned
