"""How a metric is declared: once, with its unit, its help and every value that each label may have.

It is created when it is first used, so a process reports only its own metrics. A child is created when it is first
needed, and kept: `labels()` costs more than the rest of an observation.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Generic, Literal, TypeVar

from prometheus_client import Counter, Gauge, Histogram

Values = tuple[str, ...] | str
"""The values that a label may have, or a sentence on what bounds them."""
Labels = Mapping[str, Values]
Across = Literal["livesum", "livemax", "livemin"]
Process = Literal["API", "expirer", "both"]
OTHER = "other"
"""Counts undeclared values, so that a client can't add series."""
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

M = TypeVar("M", Counter, Gauge, Histogram)


@dataclass(slots=True)
class Family(Generic[M]):
    """A metric with its children. `unit` is for the documentation; Prometheus's unit is the end of the name."""

    make: type[M]
    name: str
    unit: str
    help: str
    labels: Labels
    options: Mapping[str, Any] = field(default_factory=dict)
    metric: M | None = None
    children: dict[tuple[str, ...], M] = field(default_factory=dict)

    def of(self, *values: str) -> M:
        """The child with these values, in the order of the labels."""
        child = self.children.get(values)
        if child is None:
            # Undeclared values share one child: values from clients must not fill the memory.
            known = tuple(map(_declared, values, self.labels.values()))
            child = self.children.get(known)
            if child is None:
                child = self.children[known] = self._bind(known)
        return child

    def bind_all(self) -> None:
        """Creates every series at 0 if all values are declared: Prometheus sees no increase from a missing series."""
        bounds = [bound for bound in self.labels.values() if not isinstance(bound, str)]
        if len(bounds) == len(self.labels):
            for values in product(*bounds):
                self.of(*values)

    def _bind(self, values: tuple[str, ...]) -> M:
        if self.metric is None:
            self.metric = self.make(self.name, self.help, tuple(self.labels), **self.options)
        if not self.labels:
            return self.metric
        return self.metric.labels(*values)


def _declared(value: str, allowed: Values) -> str:
    return value if isinstance(allowed, str) or value in allowed else OTHER


@dataclass(frozen=True, slots=True)
class Group:
    """Metrics that belong together, and the process that reports them."""

    title: str
    process: Process
    families: list[Family[Any]] = field(default_factory=list)

    def counter(self, name: str, unit: str, help_: str, labels: Labels | None = None) -> Family[Counter]:
        """`name` ends in `_total`."""
        return self._listed(Family(Counter, name, unit, help_, labels or {}))

    def gauge(
        self, name: str, unit: str, help_: str, labels: Labels | None = None, *, across: Across = "livesum"
    ) -> Family[Gauge]:
        """`across` is how the values of several workers in one pod are combined."""
        return self._listed(Family(Gauge, name, unit, help_, labels or {}, {"multiprocess_mode": across}))

    def histogram(
        self, name: str, unit: str, help_: str, labels: Labels | None = None, *, buckets: Sequence[float] = SECONDS
    ) -> Family[Histogram]:
        """`buckets` are upper bounds."""
        return self._listed(Family(Histogram, name, unit, help_, labels or {}, {"buckets": buckets}))

    def _listed(self, family: Family[M]) -> Family[M]:
        self.families.append(family)
        return family


def bind_all(groups: Iterable[Group], process: Process) -> None:
    """Creates the process's counters and histograms at 0. A gauge appears once its value is known."""
    for group in groups:
        if group.process in (process, "both"):
            for family in group.families:
                if family.make is not Gauge:
                    family.bind_all()
