"""How a metric is declared: once, with its unit, its help and every value that each label may have.

It is made when it is first used, so that a process shows what it knows of and nothing else. A child is bound when it is
first asked for and kept: `labels()` costs more than the rest of an observation.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Generic, Literal, TypeVar

from prometheus_client import Counter, Gauge, Histogram

Values = tuple[str, ...] | str
"""The values that a label may have, or what bounds them, in words."""
Labels = Mapping[str, Values]
Across = Literal["livesum", "livemax", "livemin"]
Process = Literal["API", "expirer", "both"]
OTHER = "other"
"""What an undeclared value is counted as: nothing from outside decides how many series there are."""
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

M = TypeVar("M", Counter, Gauge, Histogram)


@dataclass(slots=True)
class Family(Generic[M]):
    """A metric with its children. `unit` is for people; Prometheus's is the end of the name."""

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
            # What is not declared has no child of its own: the clients' words must not fill the memory.
            known = tuple(map(_declared, values, self.labels.values()))
            child = self.children.get(known)
            if child is None:
                child = self.children[known] = self._bind(known)
        return child

    def bind_all(self) -> None:
        """Makes every series at 0, where all values are declared: an increase from nothing would not be seen."""
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
    """Metrics that belong together, and which process shows them."""

    title: str
    process: Process
    families: list[Family[Any]] = field(default_factory=list)

    def counter(self, name: str, unit: str, help_: str, labels: Labels | None = None) -> Family[Counter]:
        """`name` ends in `_total`."""
        return self._listed(Family(Counter, name, unit, help_, labels or {}))

    def gauge(
        self, name: str, unit: str, help_: str, labels: Labels | None = None, *, across: Across = "livesum"
    ) -> Family[Gauge]:
        """`across` says what several workers of one pod make of their values."""
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
    """Makes what the process will count, at 0. What is measured only, a gauge, is shown once it is known."""
    for group in groups:
        if group.process in (process, "both"):
            for family in group.families:
                if family.make is not Gauge:
                    family.bind_all()
