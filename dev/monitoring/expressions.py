"""Parts of expressions that dashboards and alerts share."""

from collections.abc import Callable, Sequence

CUSTOMERS = 'operation=~"hold|pay|release"'
REQUESTED = 'route!~"/livez|/readyz|other"'
"""Requests of customers, without health checks and unknown paths: no customer waits for those."""
OUR_FAULT = 'outcome=~"unavailable|failed"'


NAMESPACE = 'namespace=~"$namespace"'
"""The namespace that the dashboard's reader chose. `.*`, for all of them, matches targets without the label too."""


def rate(metric: str, *by: str, matching: str = "") -> str:
    """A counter's rate per second, over all processes."""
    return f"sum{_grouping(by)} (rate({chosen(metric, matching)}[$__rate_interval]))"


def quantile(share: float, histogram: str, *by: str, matching: str = "") -> str:
    """A histogram's quantile, over all processes."""
    buckets = chosen(f"{histogram}_bucket", matching)
    return f"histogram_quantile({share}, sum{_grouping(('le', *by))} (rate({buckets}[$__rate_interval])))"


def slowest(histogram: str, *by: str, matching: str = "") -> str:
    """The 95 % quantile."""
    return quantile(0.95, histogram, *by, matching=matching)


def spread(histogram: str, matching: str = "") -> dict[str, str]:
    """Three curves: the median, and the 95 % and 99 % quantiles."""
    return {f"{share:g}": quantile(share, histogram, matching=matching) for share in (0.5, 0.95, 0.99)}


def worst(gauge: str, *by: str, matching: str = "") -> str:
    """The maximum over all processes, which report the same value or of which the worst one matters."""
    return f"max{_grouping(by)} ({chosen(gauge, matching)})"


def each(ask: Callable[..., str], metric: str, *by: str, matching: str = "") -> dict[str, str]:
    """A curve for each value of the labels; the legend shows the labels."""
    return {" ".join(f"{{{{{label}}}}}" for label in by): ask(metric, *by, matching=matching)}


def chosen(metric: str, matching: str = "") -> str:
    """The metric of the chosen release only."""
    return f"{metric}{{{', '.join(filter(None, (NAMESPACE, matching)))}}}"


def _grouping(by: Sequence[str]) -> str:
    return f" by ({', '.join(by)})" if by else ""
