"""Pods and Jobs beside the release, within Pod Security "restricted"."""

import json
from typing import Any

from tests.cluster.kubernetes import Release

SECURITY = {
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def start_pod(where: Release, name: str) -> None:
    """Starts a pod that does nothing."""
    # `sleep` ignores SIGTERM as process 1.
    spec = {"containers": [container(where, name, "sleep", "600")], "terminationGracePeriodSeconds": 0}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    where.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
    where.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")


def fail_job(where: Release, name: str) -> None:
    """Starts a Job that fails at once. Returns when it has failed."""
    template = {"spec": {"containers": [container(where, name, "false")], "restartPolicy": "Never"}}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}}
    where.kubectl("apply", "-f", "-", stdin=json.dumps(job | {"spec": {"backoffLimit": 0, "template": template}}))
    where.kubectl("wait", "--for=condition=Failed", f"job/{name}", "--timeout=60s")


def container(where: Release, name: str, *command: str) -> dict[str, Any]:
    """A container with Rowlock's image, which every node has."""
    image = f"{where.cluster.repository}:{where.cluster.tag}"
    return {"name": name, "image": image, "command": command, "securityContext": SECURITY}
