"""`python -m load.campaign.page`: writes the figures of docs/reliability from committed results; `--check` compares.

The text around the figures is written by hand. Each file of `load/results/campaign` is the `--json` of a campaign, and
`load/results/mutants.json` that of `load.campaign.mutants`.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from load.campaign.mutators import MUTATORS
from load.pages import RESULTS, Page, table

PAGE = Page("reliability.md", "load.campaign.page")

Figures = Mapping[str, Any]


def figures() -> str:
    """All tables."""
    runs = [json.loads(path.read_bytes()) for path in sorted((RESULTS / "campaign").glob("*.json"))]
    mutants = json.loads((RESULTS / "mutants.json").read_bytes())
    sections = (_totals(runs), _campaigns(runs), _faults(runs), _outcomes(runs), _teeth(mutants))
    return "\n" + "\n".join(sections) + "\n"


def _totals(runs: Sequence[Figures]) -> str:
    operations = sum(run["operations"] for run in runs)
    faults = sum(sum(run["faults"].values()) for run in runs)
    unknown = sum(run["unknown_outcomes"]["writes"] for run in runs)
    resolved = sum(run["unknown_outcomes"]["resolved"] for run in runs)
    violations = sum(sum(run["violations_by_rule"].values()) for run in runs)
    late = max((run["late_seconds_max"]["outside_faults"] for run in runs), default=0)
    ever = max((run["late_seconds_max"]["ever"] for run in runs), default=0)
    return (
        f"**{operations:,} operations under {faults:,} faults, in {_counted(len(runs), 'campaign')}:"
        f" {_counted(violations, 'violation')}.**"
        f" {unknown:,} writes had an unknown\noutcome; {resolved:,} of them were resolved by a repetition. Outside and"
        f" after faults an unpaid seat was back at most\n{late:.1f} s after its deadline, during faults at most"
        f" {ever:.1f} s.\n"
    )


def _counted(count: int, noun: str) -> str:
    """The number with its noun, in the plural where that is right."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _campaigns(runs: Sequence[Figures]) -> str:
    rows = (
        (
            run["seed"], f"{run['seconds']:,.0f} s", run["postgresql"], f"`{run['commit']}`",
            f"{run['operations']:,}", f"{run['operations_per_second']:,.0f}", f"{sum(run['faults'].values()):,}",
            sum(run["violations_by_rule"].values()),
        )
        for run in runs
    )  # fmt: skip
    head = ("seed", "time", "PostgreSQL", "commit", "operations", "operations/s", "faults", "violations")
    return "### The campaigns\n\n" + table(head, rows)


def _faults(runs: Sequence[Figures]) -> str:
    """By kind: how often, how often it could not be carried out, and the time to the first success."""
    counts, skipped = Counter[str](), Counter[str]()
    for run in runs:
        counts.update(run["faults"])
        skipped.update(one["kind"] for one in run["skipped"])
    rows = []
    for kind, count in sorted(counts.items()):
        times = [run["first_success_seconds"][kind] for run in runs if kind in run["first_success_seconds"]]
        typical = f"{median(time['median'] for time in times):.2f} s" if times else ""
        longest = f"{max(time['max'] for time in times):.2f} s" if times else ""
        rows.append((kind, f"{count:,}", skipped[kind] or "", typical, longest))
    head = ("fault", "times", "of these not completed", "first success: median", "longest")
    return "### Faults, and the time to the first success\n\n" + table(head, rows)


def _outcomes(runs: Sequence[Figures]) -> str:
    """By kind of request how often each answer came."""
    found: dict[str, Counter[str]] = {}
    for run in runs:
        for kind, counts in run["outcomes"].items():
            found.setdefault(kind, Counter()).update(counts)
    rows = (
        (kind, f"{counts.total():,}", ", ".join(f"{outcome}: {count:,}" for outcome, count in counts.most_common()))
        for kind, counts in sorted(found.items())
    )
    return "### Requests and answers\n\n" + table(("request", "times", "answers"), rows)


def _teeth(mutants: Sequence[Figures]) -> str:
    caught = sum(bool(mutant["rules"]) for mutant in mutants)
    rows = [(mutant["name"], f"`{mutant['file']}`", _rules(mutant), f"{mutant['seconds']} s") for mutant in mutants]
    names = ", ".join(sorted(mutator.__name__.replace("_", " ") for mutator in MUTATORS))
    return (
        f"### The checker's teeth\n\nDefects of one line, each put into the product and then searched for by a short"
        f" campaign: {caught} of {len(mutants)} are found.\nThe time includes the start and the end of all servers.\n\n"
        + table(("defect", "file", "violations by rule", "time"), rows)
        + f"\nGood histories that are damaged in one place ({len(MUTATORS)} kinds, in `tests/campaign`) are all found:"
        f" {names}.\n"
    )


def _rules(mutant: Figures) -> str:
    return ", ".join(f"`{rule}` {count}" for rule, count in mutant["rules"].items()) or "none"


if __name__ == "__main__":
    PAGE.write(figures())
