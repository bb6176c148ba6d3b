"""Who reaches whom: a pod that has no business there gets nowhere, the expirer does."""

import json
from collections.abc import Iterator

import pytest

from tests.cluster.kubernetes import Release, until

STORES = {"rowlock-postgresql": 5432, "rowlock-redis": 6379, "rowlock-rabbitmq": 5672}
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3).close()
    print("reached")
except OSError as error:
    print("not reached", error)
"""
SECURITY = {
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.fixture
def stray(release: Release) -> Iterator[str]:
    """A pod in the release's namespace that is not its own."""
    image = f"{release.cluster.repository}:{release.cluster.tag}"
    container = {"name": "stray", "image": image, "command": ["sleep", "600"], "securityContext": SECURITY}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stray"}, "spec": {"containers": [container]}}
    release.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
    release.kubectl("wait", "--for=condition=Ready", "pod/stray", "--timeout=60s")
    yield "stray"
    release.kubectl("delete", "pod", "stray", "--grace-period=0", "--force")


def reaches(release: Release, pod: str, host: str, port: int) -> bool:
    """Whether a connection from the pod comes about."""
    said = release.kubectl("exec", pod, "--", "python", "-c", CONNECT, host, str(port))
    assert said.startswith(("reached", "not reached"))
    return said.startswith("reached")


@pytest.mark.parametrize("host", STORES)
def test_the_expirer_reaches_a_store_and_a_stray_pod_does_not(release: Release, stray: str, host: str) -> None:
    assert reaches(release, "deployment/rowlock-expirer", host, STORES[host])
    # A policy takes hold of a new pod a moment after it has its address.
    until(lambda: not reaches(release, stray, host, STORES[host]), f"a stray pod that does not reach {host}", 20)
    assert not reaches(release, stray, host, STORES[host])
    assert reaches(release, stray, "rowlock-api", 3000), "it has a network at all"
