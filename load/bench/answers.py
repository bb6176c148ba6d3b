"""The answers of one run of the generator, with their times."""

import math
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from load.bench.meter import Used

FIELDS = 5
"""Of an answer in the generator's file: `since`, `until`, `status`, `number` and `body_hash`, each a double."""


@dataclass(frozen=True)
class Answers:
    """All answers in the order in which they came, as columns. Times are seconds from the begin of the measured time.

    A latency counts from `since`, the request's own time. `numbers` count the requests from 0. `body_hashes` are of
    answers with 201 only. The generator itself sent `late_share` of the requests late.
    """

    since: Sequence[float]
    until: Sequence[float]
    statuses: Sequence[int]
    numbers: Sequence[int]
    body_hashes: Sequence[int]
    seconds: float
    backlog_max: int
    late_share: float
    used: Used

    @cached_property
    def total(self) -> Mapping[int, int]:
        """All answers by status."""
        return Counter(self.statuses)

    @cached_property
    def measured(self) -> Mapping[int, int]:
        """The answers of the measured time by status."""
        return Counter(self.statuses[n] for n in self._measured())

    @property
    def p50_ms(self) -> float:
        """The median latency in the measured time."""
        return self.percentile_ms(0.50)

    @property
    def p99_ms(self) -> float:
        """99 of 100 answers of the measured time took at most as long."""
        return self.percentile_ms(0.99)

    @property
    def max_ms(self) -> float:
        """The longest latency in the measured time."""
        return self.percentile_ms(1)

    def percentile_ms(self, share: float, status: int | None = None) -> float:
        """The latency that this share of the measured answers (with this status) does not exceed; 0 without answers."""
        took = sorted(
            self.until[n] - self.since[n] for n in self._measured() if status is None or self.statuses[n] == status
        )
        return 1000 * took[max(0, math.ceil(share * len(took)) - 1)] if took else 0

    def with_status(self, status: int) -> list[int]:
        """The positions of the answers with this status, in the order of the answers."""
        return [n for n, found in enumerate(self.statuses) if found == status]

    def longest_without(self, status: int) -> float:
        """The longest time of the measured time without an answer with this status, in seconds."""
        times = [0.0, *(self.until[n] for n in self._measured() if self.statuses[n] == status), self.seconds]
        return max(later - earlier for earlier, later in pairwise(times))

    def _measured(self) -> Iterator[int]:
        return (n for n, until in enumerate(self.until) if 0 <= until <= self.seconds)


def read(path: Path, found: Mapping[str, float], used: Used) -> Answers:
    """The answers in the generator's file, with the line that it printed."""
    values = array("d", path.read_bytes())
    since, until, statuses, numbers, hashes = (values[n::FIELDS] for n in range(FIELDS))
    began = found["began"]
    return Answers(
        since=array("d", (at - began for at in since)),
        until=array("d", (at - began for at in until)),
        statuses=array("i", map(int, statuses)),
        numbers=array("q", map(int, numbers)),
        body_hashes=array("q", map(int, hashes)),
        seconds=found["seconds"],
        backlog_max=int(found["backlog_max"]),
        late_share=found["late"] / max(found["sent"], 1),
        used=used,
    )
