"""What dashboards and alerts say often."""

CUSTOMERS = 'operation=~"hold|pay|release"'
REQUESTED = 'route!~"/livez|/readyz|other"'
"""Requests of customers: nobody waits for a health check, which is asked most when nothing else is, or for a path that
there is not."""
OUR_FAULT = 'outcome=~"unavailable|failed"'


def rate(metric: str, *by: str, matching: str = "") -> str:
    """Of a counter, a second, over all processes."""
    grouping = f" by ({', '.join(by)})" if by else ""
    return f"sum{grouping} (rate({_selector(metric, matching)}[$__rate_interval]))"


def quantile(share: float, histogram: str, *by: str, matching: str = "") -> str:
    """Of a histogram, over all processes."""
    grouping = ", ".join(("le", *by))
    buckets = _selector(f"{histogram}_bucket", matching)
    return f"histogram_quantile({share}, sum by ({grouping}) (rate({buckets}[$__rate_interval])))"


def worst(gauge: str, *by: str, matching: str = "") -> str:
    """The maximum over all processes: each says the same, or the worst of them is what matters."""
    grouping = f" by ({', '.join(by)})" if by else ""
    return f"max{grouping} ({_selector(gauge, matching)})"


def _selector(metric: str, matching: str) -> str:
    return f"{metric}{{{matching}}}" if matching else metric
