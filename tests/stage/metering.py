"""What the metrics of this process say, and how much each has moved; what those of another one say."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx
from prometheus_client import REGISTRY, Metric
from prometheus_client.parser import text_string_to_metric_families

PREFIX = "rowlock_"
COUNTED = ("_total", "_count")


def values(*endings: str) -> dict[str, float]:
    """Every sample of ours, as `operation_duration_seconds_count hold done`: its name and its labels' values."""
    return {
        " ".join([sample.name.removeprefix(PREFIX), *sample.labels.values()]): sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name.startswith(PREFIX) and "le" not in sample.labels and sample.name.endswith(endings)
    }


def gauge(name: str) -> float:
    """The value that is shown now, of a name and the values of its labels; 0 before there is one."""
    return values("").get(name, 0)


@contextmanager
def moved() -> Iterator[dict[str, float]]:
    """Filled at the block's end: by how much each counter and each number of observations has grown, where it has."""
    before = values(*COUNTED)
    grown: dict[str, float] = {}
    yield grown
    for name, value in values(*COUNTED).items():
        if value != before.get(name, 0):
            grown[name] = value - before.get(name, 0)


def about(grown: Mapping[str, float], *names: str) -> dict[str, float]:
    """Those of these metrics, by what follows their name."""
    return {key: value for key, value in grown.items() for name in names if key.partition(" ")[0].startswith(name)}


async def scrape(port: int) -> dict[str, Metric]:
    """The metrics of ours on the port, by name, as Prometheus reads them."""
    return parsed(await read(port))


async def read(port: int) -> str:
    """What is on the port."""
    # A context for TLS, which nobody needs here, takes 50 ms to make.
    async with httpx.AsyncClient(verify=False) as client:  # noqa: S501 - plain HTTP on loopback
        return (await client.get(f"http://127.0.0.1:{port}/metrics")).raise_for_status().text


def parsed(text: str) -> dict[str, Metric]:
    """The metrics of ours, by name."""
    return {
        f"{metric.name}_total" if metric.type == "counter" else metric.name: metric
        for metric in text_string_to_metric_families(text)
        if metric.name.startswith(PREFIX)
    }
