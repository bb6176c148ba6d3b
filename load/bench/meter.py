"""CPU time by process during a measurement, and how much of the machine others used."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

BENCH = "bench"
"""This process, with its children that have ended in the measured time, such as pgbench."""


@dataclass(frozen=True, slots=True)
class Used:
    """CPU seconds by part in this time, and the cores that other processes used on average."""

    seconds: float
    cpu_seconds: Mapping[str, float]
    others_cores: float


@dataclass(frozen=True, slots=True)
class Reading:
    """CPU seconds until a moment: by part, and of the whole machine."""

    at: float
    parts: Mapping[str, float]
    machine: float

    def until(self, later: "Reading") -> Used:
        """The use between two readings."""
        seconds = later.at - self.at
        parts = {name: later.parts[name] - self.parts[name] for name in self.parts}
        others = (later.machine - self.machine - sum(parts.values())) / seconds
        return Used(seconds, parts, max(0.0, others))


def reading(parts: Mapping[str, Sequence[int]]) -> Reading:
    """The CPU time of each part, by the ids of its processes. Their children count too, also those that have ended."""
    own = {BENCH: _own_seconds()}
    return Reading(
        time.perf_counter(), own | {name: sum(map(_seconds, ids)) for name, ids in parts.items()}, _machine()
    )


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _seconds(process_id: int) -> float:
    root = psutil.Process(process_id)
    used = 0.0
    for process in (root, *root.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        used += times.user + times.system + times.children_user + times.children_system
    return used


def _machine() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.steal)
