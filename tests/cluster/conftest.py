"""A temporary kind cluster, or a named one, with one release for all tests. Everything is deleted afterwards.

ROWLOCK_E2E_CONTEXT names a context of KUBECONFIG to use instead. ROWLOCK_E2E_URL is then the URL of its Ingress
controller, and ROWLOCK_E2E_REPOSITORY the repository to push images to. The tests kill pods and drain a node there.
"""

import os
import secrets
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.cluster.kubernetes import Cluster, Release, run
from tests.cluster.next_image import publish_next

RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
FEW = ("api.replicas=1", "expirer.replicas=1")
MADE: list[Release] = []
"""Every release that a failure report describes."""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with the image of this checkout."""
    if context := os.environ.get("ROWLOCK_E2E_CONTEXT"):
        yield named_cluster(context)
        return
    os.environ["KUBECONFIG"] = str(tmp_path_factory.mktemp("kind") / "kubeconfig")
    name = f"rowlock-{secrets.token_hex(3)}"
    try:
        tag = run("k8s/cluster", ROWLOCK_CLUSTER=name, ROWLOCK_INGRESS_PORT="0", seconds=600).strip()
        port = run("docker", "port", f"{name}-control-plane", "80/tcp").strip().rpartition(":")[2]
        yield Cluster(f"kind-{name}", f"http://127.0.0.1:{port}", "rowlock", tag)
    finally:
        run("kind", "delete", "cluster", "--name", name)


def named_cluster(context: str) -> Cluster:
    """Builds the image here and publishes it for the named cluster."""
    url, repository = os.environ["ROWLOCK_E2E_URL"], os.environ.get("ROWLOCK_E2E_REPOSITORY", "rowlock")
    image = run("docker", "build", "--quiet", ".", DOCKER_BUILDKIT="1", seconds=600).strip()
    there = Cluster(context, url, repository, image.removeprefix("sha256:")[:12])
    run("docker", "tag", image, f"{repository}:{there.tag}")
    there.publish(there.tag)
    return there


@pytest.fixture(scope="session")
def release(cluster: Cluster) -> Iterator[Release]:
    """A release in a namespace that enforces Pod Security "restricted"."""
    made = make_release(cluster, "rowlock-e2e", "rowlock.localhost")
    made.upgrade()
    yield made
    made.kubectl("delete", "namespace", made.namespace, "--wait=false")


@pytest.fixture(scope="session")
def second(cluster: Cluster) -> Iterator[Release]:
    """Another release in the same cluster, with few pods, which a test may break or remove."""
    made = make_release(cluster, "rowlock-second", "second.localhost")
    made.upgrade(*FEW)
    yield made
    made.kubectl("delete", "namespace", made.namespace, "--wait=false")


@pytest.fixture(scope="session")
def next_tag(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The tag of an image of the next release."""
    tag = publish_next(cluster, tmp_path_factory.mktemp("next"))
    yield tag
    run("docker", "image", "rm", f"{cluster.repository}:{tag}")


def make_release(cluster: Cluster, namespace: str, host: str) -> Release:
    """A release that is not installed yet, with its namespace."""
    made = Release(cluster, namespace, host)
    made.kubectl("create", "namespace", namespace)
    MADE.append(made)
    made.kubectl("label", "namespace", namespace, RESTRICTED)
    return made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the state of each namespace to the report of a failure."""
    report = yield
    if call.excinfo is not None:
        report.sections.extend((f"the cluster: {made.namespace}", described(made)) for made in MADE)
    return report


def described(release: Release) -> str:
    """Writes events, descriptions and logs into a folder. Returns a summary with the folder's name."""
    folder = Path(tempfile.mkdtemp(prefix="rowlock-e2e-"))
    questions = {
        "pods": ("get", "pods", "-o", "wide"),
        "events": ("get", "events", "--sort-by=.lastTimestamp"),
        "described": ("describe", "pods"),
        "logs": ("logs", "-l", "app.kubernetes.io/instance=rowlock", "--all-containers", "--prefix", "--tail=300"),
    }
    answers = {}
    for name, question in questions.items():
        try:
            answers[name] = release.kubectl(*question)
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            answers[name] = repr(error)
        (folder / name).write_text(answers[name])
    events = "\n".join(answers["events"].splitlines()[-15:])
    return f"more in {folder}\n{answers['pods']}\n{events}"
