"""A kind cluster of its own, or one that is named, and one release in it for all tests; what is made is deleted.

ROWLOCK_E2E_CONTEXT names a context of KUBECONFIG instead, with ROWLOCK_E2E_URL, where its Ingress controller answers,
and ROWLOCK_E2E_REPOSITORY, to which images are pushed. These tests kill pods and drain a node there.
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
"""Every namespace that a failure is told of."""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """With the image of this checkout."""
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
    """The image is built here and brought there."""
    url, repository = os.environ["ROWLOCK_E2E_URL"], os.environ.get("ROWLOCK_E2E_REPOSITORY", "rowlock")
    image = run("docker", "build", "--quiet", ".", DOCKER_BUILDKIT="1", seconds=600).strip()
    there = Cluster(context, url, repository, image.removeprefix("sha256:")[:12])
    run("docker", "tag", image, f"{repository}:{there.tag}")
    there.publish(there.tag)
    return there


@pytest.fixture(scope="session")
def release(cluster: Cluster) -> Iterator[Release]:
    """Installed into a namespace that enforces Pod Security "restricted"."""
    made = make_release(cluster, "rowlock-e2e", "rowlock.localhost")
    made.upgrade()
    yield made
    made.kubectl("delete", "namespace", made.namespace, "--wait=false")


@pytest.fixture(scope="session")
def second(cluster: Cluster) -> Iterator[Release]:
    """Another installation in the same cluster, of few pods, which a test may break or remove."""
    made = make_release(cluster, "rowlock-second", "second.localhost")
    made.upgrade(*FEW)
    yield made
    made.kubectl("delete", "namespace", made.namespace, "--wait=false")


@pytest.fixture(scope="session")
def next_tag(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of an image of the next release."""
    tag = publish_next(cluster, tmp_path_factory.mktemp("next"))
    yield tag
    run("docker", "image", "rm", f"{cluster.repository}:{tag}")


def make_release(cluster: Cluster, namespace: str, host: str) -> Release:
    """Not installed yet."""
    made = Release(cluster, namespace, host)
    made.kubectl("create", "namespace", namespace)
    MADE.append(made)
    made.kubectl("label", "namespace", namespace, RESTRICTED)
    return made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """After a failure: what the cluster says of each namespace, in folders whose names stand in the report."""
    report = yield
    if call.excinfo is not None:
        report.sections.extend((f"the cluster: {made.namespace}", tell_of(made)) for made in MADE)
    return report


def tell_of(release: Release) -> str:
    """Writes down events, descriptions and logs; what fits on a screen, and where the rest is."""
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
