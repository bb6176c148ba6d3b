"""The rounds, their medians and ratios, as a table and as JSON."""

import os
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from load.bench.measured import Measured

OTHERS_CORES_MAX = 0.3
NOTHING_DEVIATION_MAX = 0.2


@dataclass(slots=True)
class Round:
    """The measurements of a round in their order, and why the round is void."""

    measured: list[Measured] = field(default_factory=list)
    void: list[str] = field(default_factory=list)

    def rate_of(self, name: str) -> float | None:
        """Operations a second."""
        return next((one.per_second for one in self.measured if one.name == name), None)


def judge(rounds: Sequence[Round]) -> None:
    """Notes why a round is void: others used the machine, or N is far from the median N."""
    nothing = statistics.median(rate for one in rounds if (rate := one.rate_of("N")))
    for one in rounds:
        worst = max(one.measured, key=lambda measured: measured.others_cores)
        if worst.others_cores > OTHERS_CORES_MAX:
            one.void.append(f"others used {worst.others_cores:.2f} cores during {worst.name!r}")
        rate = one.rate_of("N") or 0
        if abs(rate / nothing - 1) > NOTHING_DEVIATION_MAX:
            one.void.append(f"N is {rate:.0f}, its median {nothing:.0f}")


def medians(rounds: Sequence[Round]) -> dict[str, dict[str, Any]]:
    """By measurement: rates, latencies and CPU times; the medians of the rounds that are not void, else of all."""
    counted = [one for one in rounds if not one.void] or rounds
    by_name: dict[str, list[Measured]] = {}
    for one in counted:
        for measured in one.measured:
            by_name.setdefault(measured.name, []).append(measured)
    return {name: _median(several) for name, several in by_name.items()}


def _median(several: Sequence[Measured]) -> dict[str, Any]:
    rates = [one.per_second for one in several]
    return {
        "per_second": statistics.median(rates),
        "per_second_min": min(rates),
        "per_second_max": max(rates),
        "cpu_us": _medians_of([one.cpu_us for one in several]),
        "latency_ms": _medians_of([one.latency_ms for one in several]),
        "others_cores": max(one.others_cores for one in several),
        "more": _medians_of([one.more for one in several]),
    }


def _medians_of(several: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in several) for name in several[0]}


def ratios(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Our holds beside the limits: the best setting with PostgreSQL alone, and the best with everything on."""
    rates = {name: one["per_second"] for name, one in found.items()}
    if not {"N", "B", "P1", "REF"} <= rates.keys():
        return {}
    limit = 1 / (1 / rates["N"] + 1 / rates["B"])
    result: dict[str, Any] = {"l_per_second": limit}
    for suffix, start in (("", "hold, "), ("_all_on", "hold, all on, ")):
        ours = {
            name: rate for name, rate in rates.items() if name.startswith(start) and ("all on" in name) == bool(suffix)
        }
        if not ours:
            continue
        best = max(ours, key=ours.__getitem__)
        result |= {
            f"ours{suffix}": best,
            f"ours_over_l{suffix}": ours[best] / limit,
            f"ours_over_ref{suffix}": ours[best] / rates["REF"],
            f"ours_over_p1{suffix}": ours[best] / rates["P1"],
        }
    return result


def machine() -> dict[str, Any]:
    """Where it was measured."""
    return {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}


def document(rounds: Sequence[Round], postgresql: str, seconds: float) -> dict[str, Any]:
    """The content of bench.json."""
    found = medians(rounds)
    return {
        "machine": machine() | {"postgresql": postgresql},
        "seconds": seconds,
        "rounds": [asdict(one) for one in rounds],
        "all_void": all(one.void for one in rounds),
        "medians": found,
        "ratios": ratios(found),
    }


def table(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A line for each measurement: rates a second, latencies, CPU for an operation by part, and the cores of others."""
    yield f"{'':<42}{'/s':>8}{'min':>8}{'max':>8}{'p50 ms':>8}{'p99 ms':>8}{'others':>8}  CPU in microseconds"
    for name, one in found.items():
        latency = one["latency_ms"]
        cells = [f"{one[key]:>8.0f}" for key in ("per_second", "per_second_min", "per_second_max")]
        cells += [f"{latency[key]:>8.1f}" if key in latency else f"{'':>8}" for key in ("p50", "p99")]
        parts = [f"{part} {used:.0f}" for part, used in one["cpu_us"].items() if used >= 1]
        more = [f"{key} {value:.1f}" for key, value in one["more"].items()]
        yield f"{name:<42}{''.join(cells)}{one['others_cores']:>8.2f}  {', '.join(parts + more)}"


def ratio_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The ratios for people."""
    for name, value in found.items():
        yield f"{name:<24}{value if isinstance(value, str) else f'{value:.2f}'}"
