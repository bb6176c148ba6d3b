"""NetworkPolicies: the expirer reaches the stores, an unrelated pod does not."""

from collections.abc import Iterator

import pytest

from tests.cluster.conftest import make_release
from tests.cluster.kubernetes import Release, until
from tests.cluster.strays import start_pod

STORES = {"rowlock-postgresql": 5432, "rowlock-redis": 6379, "rowlock-rabbitmq": 5672}
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3).close()
    print("reached")
except OSError as error:
    print("not reached", error)
"""


@pytest.fixture
def stray(release: Release) -> Iterator[str]:
    """A pod in the release's namespace that does not belong to the release."""
    start_pod(release, "stray")
    yield "stray"
    release.kubectl("delete", "pod", "stray", "--grace-period=0", "--force")


@pytest.fixture
def monitoring(release: Release) -> Iterator[Release]:
    """The namespace from which scraping is allowed, with a pod named `scraper`."""
    made = make_release(release.cluster, "rowlock-monitoring", "none")
    start_pod(made, "scraper")
    yield made
    made.kubectl("delete", "namespace", made.namespace)


def reaches(release: Release, pod: str, host: str, port: int) -> bool:
    """Whether the pod can open the connection."""
    said = release.kubectl("exec", pod, "--", "python", "-c", CONNECT, host, str(port))
    assert said.startswith(("reached", "not reached"))
    return said.startswith("reached")


@pytest.mark.parametrize("host", STORES)
def test_the_expirer_reaches_a_store_and_a_stray_pod_does_not(release: Release, stray: str, host: str) -> None:
    assert reaches(release, "deployment/rowlock-expirer", host, STORES[host])
    # A policy applies to a new pod a moment after the pod has its address.
    until(lambda: not reaches(release, stray, host, STORES[host]), f"a stray pod that does not reach {host}", 20)
    assert not reaches(release, stray, host, STORES[host])
    assert reaches(release, stray, "rowlock-api", 3000), "it has a network at all"


@pytest.mark.parametrize(("component", "port"), [("api", 9100), ("expirer", 9101)])
def test_prometheus_reads_the_metrics_and_a_stray_pod_does_not(
    release: Release, stray: str, monitoring: Release, component: str, port: int
) -> None:
    address = release.pods(component)[0]["status"]["podIP"]
    assert reaches(monitoring, "scraper", address, port)
    read = f"import urllib.request as r; print(r.urlopen('http://{address}:{port}/metrics', timeout=5).read().decode())"
    assert "rowlock_build_info" in monitoring.kubectl("exec", "scraper", "--", "python", "-c", read)
    until(lambda: not reaches(release, stray, address, port), "a stray pod that does not reach the metrics", 20)
    assert not reaches(release, stray, address, port)
