"""The latencies of a scenario's run by name, and whether they mean anything."""

from collections.abc import Mapping

from load.bench.answers import Answers
from load.bench.generator import LATE_SHARE_MAX

LATE = "share that the generator sent late"


def latencies(what: str, answers: Answers, suffix: str = "") -> dict[str, float]:
    """Those of the measured time."""
    values = {
        "p50 ms": answers.p50_ms,
        "p99 ms": answers.p99_ms,
        "longest ms": answers.max_ms,
        LATE: answers.late_share,
    }
    return {f"{name} {what}{suffix}": value for name, value in values.items()}


def by_status(answers: Answers, suffix: str = "") -> dict[str, float]:
    """All answers by status."""
    return {f"answers {status}{suffix}": count for status, count in sorted(answers.total.items())}


def is_void(found: Mapping[str, float]) -> bool:
    """Whether the generator itself was too slow, so that the latencies mean nothing."""
    return any(value > LATE_SHARE_MAX for name, value in found.items() if name.startswith(LATE))
