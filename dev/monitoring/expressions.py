"""What dashboards and alerts say often."""

from collections.abc import Callable, Sequence

CUSTOMERS = 'operation=~"hold|pay|release"'
REQUESTED = 'route!~"/livez|/readyz|other"'
"""Requests of customers: nobody waits for a health check, which is asked most when nothing else is, or for a path that
there is not."""
OUR_FAULT = 'outcome=~"unavailable|failed"'


NAMESPACE = 'namespace=~"$namespace"'
"""Of the release that a dashboard's reader chose; `.*`, which is all of them, fits targets without the label too."""


def rate(metric: str, *by: str, matching: str = "") -> str:
    """Of a counter, a second, over all processes."""
    return f"sum{_grouping(by)} (rate({chosen(metric, matching)}[$__rate_interval]))"


def quantile(share: float, histogram: str, *by: str, matching: str = "") -> str:
    """Of a histogram, over all processes."""
    buckets = chosen(f"{histogram}_bucket", matching)
    return f"histogram_quantile({share}, sum{_grouping(('le', *by))} (rate({buckets}[$__rate_interval])))"


def slowest(histogram: str, *by: str, matching: str = "") -> str:
    """Within this time are 95 of 100."""
    return quantile(0.95, histogram, *by, matching=matching)


def spread(histogram: str, matching: str = "") -> dict[str, str]:
    """Three curves: the median, and within which time 95 and 99 of 100 are."""
    return {f"{share:g}": quantile(share, histogram, matching=matching) for share in (0.5, 0.95, 0.99)}


def worst(gauge: str, *by: str, matching: str = "") -> str:
    """The maximum over all processes: each says the same, or the worst of them is what matters."""
    return f"max{_grouping(by)} ({chosen(gauge, matching)})"


def each(ask: Callable[..., str], metric: str, *by: str, matching: str = "") -> dict[str, str]:
    """A curve for each value of the labels, which are its legend."""
    return {" ".join(f"{{{{{label}}}}}" for label in by): ask(metric, *by, matching=matching)}


def chosen(metric: str, matching: str = "") -> str:
    """Of the chosen release alone."""
    return f"{metric}{{{', '.join(filter(None, (NAMESPACE, matching)))}}}"


def _grouping(by: Sequence[str]) -> str:
    return f" by ({', '.join(by)})" if by else ""
