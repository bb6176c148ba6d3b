"""`python -m load.bench.page`: writes the figures of docs/performance from committed results; `--check` compares.

The text around the figures is written by hand.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from load.pages import RESULTS, Page, table

PAGE = Page("performance.md", "load.bench.page")

HOLD = "hold, 1 process, 64 connections"
FIGURES_MIN = 1
"""Microseconds of CPU below which a part is not shown."""

Found = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal: its text, the value in bench.json, and its bound with its sign."""

    text: str
    value: Callable[[Found], float]
    sign: Literal["≥", "≤"]
    bound: float

    def row(self, found: Found) -> tuple[str, str, str, str] | None:
        """None where the scenario was not measured."""
        try:
            value = self.value(found)
        except KeyError:
            return None
        is_reached = value >= self.bound if self.sign == "≥" else value <= self.bound
        return self.text, f"{self.sign} {self.bound:g}", f"{value:,.2f}", "yes" if is_reached else "no"


def _ratio(name: str) -> Callable[[Found], float]:
    return lambda found: found["ratios"][name]


def _over(name: str, other: str) -> Callable[[Found], float]:
    return lambda found: found["medians"][name]["per_second"] / found["medians"][other]["per_second"]


def _of(scenario: str, name: str) -> Callable[[Found], float]:
    return lambda found: found["scenarios"][scenario][name]


SCENARIO_GOALS: tuple[tuple[str, str, str, Literal["≥", "≤"], float], ...] = (
    ("half of the capacity: p99 in ms", "half", "p99 ms at half of it", "≤", 25),
    ("twice the capacity: holds beside the capacity", "overload", "of the capacity", "≥", 0.9),
    ("twice the capacity: p99 of refusals in ms", "overload", "p99 ms of refusals", "≤", 100),
    ("twice the capacity: seconds until normal", "overload", "seconds until latencies are normal", "≤", 2),
    ("beside a full session: p99 of others, times quiet", "bulkhead", "p99 of other sessions, times quiet", "≤", 3),
    ("95 maps to 5 holds, beside the prediction", "browse", "of the prediction", "≥", 0.65),
    ("soak: requests a second, last tenth beside first", "soak", "requests a second, last of first", "≥", 0.95),
    ("soak: memory of the API, last tenth beside first", "soak", "MiB of the API, last of first", "≤", 1.05),
    ("soak: size of the seats, last tenth beside first", "soak", "MiB of the seats, last of first", "≤", 1.05),
    ("a million seats: holds beside few", "growth", "holds a second, 1000000 seats, of the smallest", "≥", 0.9),
    ("a million holds: holds beside few", "growth", "holds a second, 1000000 reservations, of the smallest", "≥", 0.9),
    ("100,000 sessions: holds beside few", "growth", "holds a second, 100000 sessions, of the smallest", "≥", 0.9),
)

GOALS = (
    Goal("holds beside L, PostgreSQL alone", _ratio("ours_over_l"), "≥", 0.75),
    Goal("holds beside REF, PostgreSQL alone", _ratio("ours_over_ref"), "≥", 15),
    Goal("holds beside P1, PostgreSQL alone", _ratio("ours_over_p1"), "≥", 1.4),
    Goal("holds beside L, all on", _ratio("ours_over_l_all_on"), "≥", 0.5),
    Goal("payments beside holds", _over("pay, 1 process, 64 connections", HOLD), "≥", 0.8),
    Goal("releases beside holds", _over("release, 1 process, 64 connections", HOLD), "≥", 0.8),
    Goal("refusals for one hot seat beside N", _over("hot seat, 1 process, 64 connections", "N"), "≥", 0.4),
    *(Goal(text, _of(scenario, name), sign, bound) for text, scenario, name, sign, bound in SCENARIO_GOALS),
)


def figures(found: Found) -> str:
    """All tables."""
    goals = [row for goal in GOALS if (row := goal.row(found))]
    sections = (
        _measured_on(found),
        table(("goal", "bound", "measured", "reached"), goals),
        "### Rates and CPU times\n\n" + table(("", "/s", "p99 ms", "CPU in µs for each"), _rates(found["medians"])),
    )
    return "\n" + "\n".join(sections) + "\n"


def _measured_on(found: Found) -> str:
    machine, rounds = found["machine"], len(found["rounds"])
    void = sum(bool(one["void"]) for one in found["rounds"])
    late = ", ".join(name for name, one in sorted(found["scenarios"].items()) if one["void"])
    return (
        f"Medians of {rounds} interleaved rounds of {found['seconds']:g} s for each figure, on {machine['cores']} cores"
        f" with Python {machine['python']}.\nVoid rounds, beside other work: {void}. Scenarios in which the generator"
        f" itself was late: {late or 'none'}.\n"
    )


def _rates(medians: Found) -> Iterator[tuple[str, str, str, str]]:
    for name, one in medians.items():
        parts = [f"{part} {used:,.0f}" for part, used in one["cpu_us"].items() if used >= FIGURES_MIN]
        p99 = f"{one['latency_ms']['p99']:,.0f}" if "p99" in one["latency_ms"] else ""
        yield name, f"{one['per_second']:,.0f}", p99, ", ".join(parts)


if __name__ == "__main__":
    PAGE.write(figures(json.loads((RESULTS / "bench.json").read_bytes())))
