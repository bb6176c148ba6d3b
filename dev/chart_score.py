"""`python -m dev.chart_score FILE`: fails after an unexpected finding of kube-score, and after an unused exception."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

ANY = ("Deployment", "StatefulSet", "Job", "Pod")
PASSED = 10
"""The grade of a check that is met; it may have comments."""
STORES = ("StatefulSet",)
EXCEPTIONS = {
    # Releases have tags that never change. With Always a pod could not start while the registry is down.
    "container-image-pull-policy": ANY,
    # Without a volume (`persistence.enabled: false`) the data is ephemeral storage, and a limit would evict it.
    "container-ephemeral-storage-request-and-limit": STORES,
    # The accounts of the official images, which own the files in them.
    "container-security-context-user-group-id": STORES,
    # No Service sends to the expirer, so its readiness only paces rollouts: one that works is ready.
    "pod-probes-identical": ("Deployment",),
    # A restart does not help a slow or recovering store, and Kubernetes restarts one that has ended anyway.
    "pod-probes": STORES,
}
"""Checks of kube-score that the chart does not meet on purpose, and the kinds of objects that may fail them."""


def findings(path: Path) -> Iterator[tuple[str, str, str]]:
    """The check, the kind and the text of each finding."""
    for found in json.loads(path.read_text()):
        kind, name = found["type_meta"]["kind"], found["object_meta"]["name"]
        for check in found["checks"]:
            if not check["skipped"] and check["grade"] < PASSED:
                for comment in check["comments"] or []:
                    yield check["check"]["id"], kind, f"{kind} {name}: {comment['path']} {comment['summary']}"


def faults(path: Path) -> list[str]:
    """Findings that are not exceptions, and exceptions without a finding."""
    found = list(findings(path))
    fresh = [f"{check}: {text}" for check, kind, text in found if kind not in EXCEPTIONS.get(check, ())]
    seen = {check for check, _, _ in found}
    unused = [f"{check}: nothing fails this check now: remove its exception" for check in EXCEPTIONS.keys() - seen]
    return fresh + unused


if __name__ == "__main__":
    if told := faults(Path(sys.argv[1])):
        sys.exit("\n".join(told))
