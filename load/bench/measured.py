"""One measurement's result."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from load.bench.answers import Answers
from load.bench.meter import Used


@dataclass(frozen=True, slots=True)
class Timing:
    """The seconds of a measurement, and those before it that do not count."""

    warm_up_seconds: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Measured:
    """Operations a second, and CPU microseconds of each part for an operation."""

    name: str
    per_second: float
    cpu_us: Mapping[str, float]
    others_cores: float
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    more: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of_count(cls, name: str, count: int, used: Used) -> Self:
        """The result of a contender without HTTP."""
        cpu_us = {part: 1_000_000 * seconds / max(count, 1) for part, seconds in used.cpu_seconds.items()}
        return cls(name, count / used.seconds, cpu_us, used.others_cores)

    @classmethod
    def of_answers(
        cls, name: str, answers: Answers, wanted: int, also: int | None = None, more: Mapping[str, float] | None = None
    ) -> Self:
        """The result of a run of the generator. Raises RuntimeError for an answer with another status."""
        if unwanted := {status: n for status, n in answers.total.items() if status not in (wanted, also)}:
            raise RuntimeError(f"{name}: answers by status {unwanted}")
        counted = cls.of_count(name, answers.measured.get(wanted, 0), answers.used)
        latency_ms = {"p50": answers.p50_ms, "p99": answers.p99_ms, "max": answers.max_ms}
        return cls(name, counted.per_second, counted.cpu_us, counted.others_cores, latency_ms, more or {})
