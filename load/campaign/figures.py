"""The figures of a campaign, for docs/reliability: as JSON, small enough to be committed."""

import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from load.campaign.campaign import Options, Result
from load.campaign.checks.answers import unresolved
from load.campaign.checks.deadlines import calm_since
from load.campaign.history import WRITES, Fault, History

ROOT = Path(__file__).parents[2]
STOPS_SELLING = {"postgres-restarted", "postgres-failed-over", "postgres-disk-full"}
"""Kinds during which nothing can be sold, so that the time to the first success counts from the server's return."""
HEAL = "heal"
VIOLATIONS_MAX = 50


def summary(options: Options, result: Result) -> bytes:
    """All figures."""
    history = result.history
    writes = [operation for operation in history.of(*WRITES) if operation.is_unknown]
    resolved = len(writes) - sum(1 for _ in unresolved(history))
    faults = Counter(fault.kind for fault in history.faults if fault.kind != HEAL)
    figures = {
        "commit": _commit(),
        "seed": options.seed,
        "seconds": options.seconds,
        "postgresql": result.postgresql.split()[0],
        "synchronous": options.synchronous,
        "operations": len(history.operations),
        "operations_per_second": round(len(history.operations) / options.seconds, 1),
        "outcomes": _outcomes(history),
        "events": len(history.events),
        "reservations": Counter(row.state for row in history.reservations.values()),
        "faults": faults,
        "skipped": [{"kind": kind, "reason": reason} for kind, reason in result.skipped],
        "unknown_outcomes": {"writes": len(writes), "resolved": resolved},
        "first_success_seconds": first_successes(history),
        "late_seconds_max": latest(history),
        "check_seconds": round(result.check_seconds, 1),
        "violations_by_rule": Counter(violation.rule for violation in result.violations),
        "violations": [asdict(violation) for violation in result.violations[:VIOLATIONS_MAX]],
    }
    return orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def first_successes(history: History) -> dict[str, dict[str, float]]:
    """By kind of fault the seconds until the next answer that acknowledged a write, to any client.

    They count from the fault's begin: another process continues. Where selling stops altogether they count from the
    moment when PostgreSQL took writes again.
    """
    answers = sorted(
        operation.answered
        for operation in history.of(*WRITES)
        if operation.succeeded and not operation.replayed and operation.answered is not None
    )
    times: dict[str, list[float]] = {}
    for fault, seconds in _first_successes(history.faults, answers):
        times.setdefault(fault.kind, []).append(seconds)
    return {
        kind: {"count": len(found), "median": round(median(found), 3), "max": round(max(found), 3)}
        for kind, found in sorted(times.items())
    }


def _first_successes(faults: Sequence[Fault], answers: Sequence[int]) -> Iterator[tuple[Fault, float]]:
    """The faults after which a success came, with the seconds. After the last ones the campaign may have ended."""
    waiting = sorted(((_counts_from(fault), fault) for fault in faults if fault.kind != HEAL), key=lambda pair: pair[0])
    following = iter(answers)
    at: float = next(following, inf)
    for since, fault in waiting:
        while at < since:
            at = next(following, inf)
        if at < inf:
            yield fault, (at - since) / 1_000_000


def _counts_from(fault: Fault) -> int:
    if fault.kind not in STOPS_SELLING:
        return fault.began
    return fault.back if fault.back is not None else fault.ended


def latest(history: History) -> dict[str, float]:
    """The longest time from a hold's deadline to its expiry: in all, and without the times of faults."""
    bound = int(history.limits.late_seconds_max * 1_000_000)
    longest = {"ever": 0, "outside_faults": 0}
    for row in history.reservations.values():
        if row.state == "EXPIRED" and row.settled_at is not None:
            since = calm_since(history.faults, row.expires_at, bound)
            longest["ever"] = max(longest["ever"], row.settled_at - row.expires_at)
            longest["outside_faults"] = max(longest["outside_faults"], row.settled_at - since)
    return {name: round(microseconds / 1_000_000, 3) for name, microseconds in longest.items()}


def _outcomes(history: History) -> dict[str, Any]:
    """By kind of operation how often each outcome came."""
    found: dict[str, Counter[str]] = {}
    for operation in history.operations:
        outcome = operation.problem or ("no answer" if operation.status is None else str(operation.status))
        found.setdefault(operation.kind, Counter())[outcome] += 1
    return {kind: dict(counts.most_common()) for kind, counts in sorted(found.items())}


def _commit() -> str:
    """The commit of the code, or `unknown` outside a checkout."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return found.stdout.strip() or "unknown"
