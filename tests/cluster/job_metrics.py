"""A substitute for kube-state-metrics, which not every machine can install. It reports failed Jobs only.

It reads the Jobs of the cluster and exports `kube_job_failed` as kube-state-metrics documents it: three series for a
failed Job, one of them 1, and none for another Job.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from tests.cluster.kubernetes import Cluster, run

STATES = ("true", "false", "unknown")


@dataclass(frozen=True, slots=True)
class FailedJobs(Collector):
    """The failed Jobs of all namespaces, read by each scrape."""

    cluster: Cluster

    def collect(self) -> Iterable[Metric]:
        """One family, with a sample for each failed Job and state."""
        said = run("kubectl", "--context", self.cluster.context, "get", "jobs", "--all-namespaces", "-o", "json")
        family = GaugeMetricFamily(
            "kube_job_failed", "The job has failed its execution.", labels=("namespace", "job_name", "condition")
        )
        for job in json.loads(said)["items"]:
            for condition in job["status"].get("conditions", ()):
                if condition["type"] == "Failed":
                    name = (job["metadata"]["namespace"], job["metadata"]["name"])
                    for state in STATES:
                        family.add_metric((*name, state), float(condition["status"].lower() == state))
        yield family


@contextmanager
def served(cluster: Cluster) -> Iterator[int]:
    """Serves the metrics on loopback. Yields the port."""
    registry = CollectorRegistry(auto_describe=False)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    registry.register(FailedJobs(cluster))
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
