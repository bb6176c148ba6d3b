"""The metrics of this process and their growth, and the metrics of other processes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx
from prometheus_client import REGISTRY, Metric
from prometheus_client.parser import text_string_to_metric_families

PREFIX = "rowlock_"
COUNTED = ("_total", "_count")


def values(*endings: str) -> dict[str, float]:
    """Our samples by name and labels' values, such as `operation_duration_seconds_count hold done`."""
    return {
        " ".join([sample.name.removeprefix(PREFIX), *sample.labels.values()]): sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name.startswith(PREFIX) and "le" not in sample.labels and sample.name.endswith(endings)
    }


def gauge(name: str) -> float:
    """The current value, by name and labels' values; 0 if there is none."""
    return values("").get(name, 0)


@contextmanager
def moved() -> Iterator[dict[str, float]]:
    """The growth of each counter and each number of observations, filled at the end of the block."""
    before = values(*COUNTED)
    grown: dict[str, float] = {}
    yield grown
    for name, value in values(*COUNTED).items():
        if value != before.get(name, 0):
            grown[name] = value - before.get(name, 0)


def about(grown: Mapping[str, float], *names: str) -> dict[str, float]:
    """The growth of the metrics whose names begin with one of these."""
    return {key: value for key, value in grown.items() for name in names if key.partition(" ")[0].startswith(name)}


async def scrape(port: int) -> dict[str, Metric]:
    """Our metrics on the port, by name, as Prometheus reads them."""
    return parsed(await read(port))


async def read(port: int) -> str:
    """The text on the port."""
    # A TLS context is not needed, and takes 50 ms to make.
    async with httpx.AsyncClient(verify=False) as client:  # noqa: S501 - plain HTTP on loopback
        return (await client.get(f"http://127.0.0.1:{port}/metrics")).raise_for_status().text


def parsed(text: str) -> dict[str, Metric]:
    """Our metrics, by name."""
    return {
        f"{metric.name}_total" if metric.type == "counter" else metric.name: metric
        for metric in text_string_to_metric_families(text)
        if metric.name.startswith(PREFIX)
    }
