"""Checks the selectors of an expression against the catalogue of metrics."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import Counter, Histogram

from service.observability.metrics.catalogue import GROUPS

FOREIGN = {
    "process_cpu_seconds_total": {"instance"},
    "process_resident_memory_bytes": {"instance"},
    "kube_job_failed": {"namespace", "job_name", "condition"},
}
"""Metrics of prometheus-client and kube-state-metrics, which are not in the catalogue."""
FROM_PROMETHEUS = {"instance", "job", "namespace"}
"""Labels that every target may have."""
METRIC = re.compile(r"\b(?:rowlock|process|kube)_[a-z0-9_]+\b(?:\{[^}]*\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
AGGREGATION = re.compile(
    r"\b(?:sum|max|min|avg|count|group|quantile|topk|bottomk|stddev|stdvar|count_values)\b"
    r"\s*(?:(by|without)\s*\(([^)]*)\))?"
)
JOIN = re.compile(r"\b(on|ignoring)\s*\(([^)]*)\)")
CHOSEN = 'namespace=~"$namespace"'
GROUPING = re.compile(r"\b(?:by|ignoring|on|without)\s*\(([^)]*)\)")


@dataclass(frozen=True, slots=True)
class Known:
    """`labels` maps names to their possible values, or to None if these are not listed."""

    labels: dict[str, frozenset[str] | None]


def known() -> dict[str, Known]:
    """Every series that the service exports, by name."""
    series: dict[str, Known] = {}
    for family in (family for group in GROUPS for family in group.families):
        labels: dict[str, frozenset[str] | None] = {
            name: None if isinstance(bound, str) else frozenset(bound) for name, bound in family.labels.items()
        }
        endings = ("_count", "_sum", "_bucket") if family.make is Histogram else ("",)
        assert family.make is not Counter or family.name.endswith("_total")
        for ending in endings:
            bounds = map(_as_shown, family.options.get("buckets", ()))
            more: dict[str, frozenset[str] | None] = {"le": frozenset(bounds) | {"+Inf"}} if ending == "_bucket" else {}
            series[family.name + ending] = Known(labels | more)
    return series | {name: Known(dict.fromkeys(labels)) for name, labels in FOREIGN.items()}


def _as_shown(bound: float) -> str:
    return str(float(bound))


def selectors(expression: str) -> list[str]:
    """The selectors in the expression, as `name{matchers}`."""
    return METRIC.findall(GROUPING.sub("", expression))


def mistakes(expression: str) -> list[str]:
    """Metrics, labels and values in the expression that no process exports."""
    found, series = [], known()
    labels = FROM_PROMETHEUS.copy()
    for selector in selectors(expression):
        name = selector.partition("{")[0]
        if name not in series:
            found.append(f"no metric {name}")
            continue
        labels |= set(series[name].labels)
        found += [problem for matcher in MATCHER.findall(selector) for problem in _of_matcher(series[name], matcher)]
    grouped = {label.strip() for group in GROUPING.findall(expression) for label in group.split(",")}
    return found + [f"no label {label}" for label in sorted(grouped - labels)]


def unfiltered(expression: str) -> list[str]:
    """Selectors of a panel that include other releases than the chosen one."""
    return [selector for selector in selectors(expression) if CHOSEN not in selector]


def added_together(expression: str) -> list[str]:
    """Parts of an alert that add up or join several namespaces."""
    found = [
        whole[0]
        for whole in [*AGGREGATION.finditer(expression), *JOIN.finditer(expression)]
        if (whole[1] in ("by", "on")) != ("namespace" in re.findall(r"\w+", whole[2] or "")) or not whole[1]
    ]
    absent = re.findall(r"absent(?:_over_time)?\s*\(([^)]*)\)", expression)
    return found + [inner for inner in absent if "namespace" not in inner]


def _of_matcher(series: Known, matcher: tuple[str, str, str]) -> Iterable[str]:
    label, operator, value = matcher
    if label in FROM_PROMETHEUS:
        return []
    if label not in series.labels:
        return [f"no label {label}"]
    allowed = series.labels[label]
    asked = value.split("|") if "~" in operator else [value]
    return [f"no value {label}={one}" for one in asked if allowed is not None and one not in allowed]
