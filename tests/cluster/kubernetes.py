"""kubectl, helm and docker for these tests. Each call has a timeout and reports its error."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
SECONDS_MAX = 180
POLL_SECONDS = 0.5


def run(*command: str, stdin: str | None = None, seconds: float = SECONDS_MAX, **variables: str) -> str:
    """The command's output. Fails with output and errors if its exit code is not 0."""
    result = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | variables,
        input=stdin,
        check=False,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert result.returncode == 0, f"{' '.join(command)}: {result.stdout}{result.stderr}"
    return result.stdout


def until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Returns when the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(POLL_SECONDS)


@dataclass(frozen=True, slots=True)
class Cluster:
    """`url` is that of its Ingress controller; `repository` and `tag` name the image of this checkout."""

    context: str
    url: str
    repository: str
    tag: str

    def publish(self, tag: str) -> None:
        """Makes the image `repository:tag` available to the cluster's nodes."""
        name = f"{self.repository}:{tag}"
        if self.context.startswith("kind-"):
            run("kind", "load", "docker-image", "--name", self.context.removeprefix("kind-"), name)
        else:
            run("docker", "push", name)


@dataclass(frozen=True, slots=True)
class Release:
    """One installation in its own namespace. Its name is the chart's, so objects are named `rowlock-…`."""

    cluster: Cluster
    namespace: str
    host: str

    def kubectl(self, *arguments: str, stdin: str | None = None, seconds: float = SECONDS_MAX) -> str:
        """Runs it in the release's namespace."""
        where = ("--context", self.cluster.context, "--namespace", self.namespace)
        return run("kubectl", *where, *arguments, stdin=stdin, seconds=seconds)

    def helm(self, *arguments: str, seconds: float = 420) -> str:
        """Runs it in the release's namespace."""
        where = ("--kube-context", self.cluster.context, "--namespace", self.namespace)
        return run("helm", *where, *arguments, seconds=seconds)

    def upgrade(self, *changes: str, tag: str | None = None, timeout: str = "6m", wait: str = "--wait") -> None:
        """Installs or upgrades the release with the tests' values and these changes, and waits until it is ready.

        Another option of helm may replace `wait`.
        """
        values = self._values(changes, tag or self.cluster.tag)
        self.helm("upgrade", "--install", "rowlock", "chart", *values, wait, "--timeout", timeout)

    def template(self, file: str, *changes: str) -> str:
        """The chart's file, rendered with the same values."""
        return self.helm("template", "rowlock", "chart", *self._values(changes, self.cluster.tag), "--show-only", file)

    def _values(self, changes: Sequence[str], tag: str) -> list[str]:
        image = f"image.repository={self.cluster.repository},image.tag={tag}"
        own = f"{image},ingress.hosts={{{self.host}}}"
        values = ["--values", "k8s/values.yaml", "--values", "tests/cluster/values.yaml", "--set-string", own]
        return [*values, *(part for change in changes for part in ("--set", change))]

    def objects(self, kind: str, *selectors: str) -> list[dict[str, Any]]:
        """All objects of a kind with these labels."""
        labels = ",".join(("app.kubernetes.io/instance=rowlock", *selectors))
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", kind, "-l", labels, "-o", "json"))["items"]
        return found

    def jobs(self) -> list[str]:
        """The names of its migration Jobs, oldest first."""
        made = sorted(self.objects("jobs"), key=lambda job: str(job["metadata"]["creationTimestamp"]))
        return [job["metadata"]["name"] for job in made]

    def pods(self, component: str) -> list[dict[str, Any]]:
        """The pods that are not being deleted."""
        found = self.objects("pods", f"app.kubernetes.io/component={component}")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def pod_names(self, component: str) -> list[str]:
        """The names of the pods that are not being deleted."""
        return [pod["metadata"]["name"] for pod in self.pods(component)]

    def until_ready(self, component: str, count: int, seconds: float = 120) -> None:
        """Returns when exactly this number of pods exists and all are ready."""

        def ready() -> bool:
            pods = self.pods(component)
            return len(pods) == count and all(map(is_ready, pods))

        until(ready, f"{count} pods of {component} that are ready", seconds)

    def restarts(self, component: str) -> int:
        """The restarts of all containers of its pods."""
        return sum(
            status["restartCount"] for pod in self.pods(component) for status in pod["status"]["containerStatuses"]
        )

    def sql(self, query: str) -> list[list[str]]:
        """The rows of a query, as PostgreSQL prints them."""
        psql = ("psql", "-U", "rowlock", "-d", "rowlock", "-AtX", "-v", "ON_ERROR_STOP=1", "-F", "\t", "-f", "-")
        output = self.kubectl("exec", "-i", "rowlock-postgresql-0", "--", *psql, stdin=query)
        return [line.split("\t") for line in output.splitlines()]


def is_ready(pod: dict[str, Any]) -> bool:
    """Whether the pod's conditions include Ready."""
    conditions: Sequence[dict[str, str]] = pod["status"].get("conditions", ())
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
