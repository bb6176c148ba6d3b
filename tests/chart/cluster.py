"""A Kubernetes API that answers what `lookup` asks, so that templates see objects without a cluster."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from tests.chart.rendering import NAMESPACE, Object

NAMESPACE_EXISTS: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt"}}
"""Kubernetes creates it in every namespace."""
RESOURCES = {
    "v1": {
        "Secret": "secrets",
        "ConfigMap": "configmaps",
        "PersistentVolumeClaim": "persistentvolumeclaims",
        "Service": "services",
    },
    "apps/v1": {"Deployment": "deployments", "StatefulSet": "statefulsets"},
}
"""The kinds that a template may look up, and their names in paths."""


@contextmanager
def cluster(objects: Sequence[Object]) -> Iterator[tuple[str, ...]]:
    """Arguments of helm with which `lookup` finds these objects in the namespace of the release."""
    answers = _discovery() | {_path(found): found for found in (NAMESPACE_EXISTS, *objects)}

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(self.path.partition("?")[0])
            body = json.dumps(found or {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404})
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            """Keeps the output of the tests clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield "--dry-run=server", f"--kube-apiserver=http://127.0.0.1:{server.server_port}", "--kubeconfig=/dev/null"
        server.shutdown()


def _root(version: str) -> str:
    return f"/apis/{version}" if "/" in version else f"/api/{version}"


def _path(found: Object) -> str:
    version = found["apiVersion"]
    name = found["metadata"]["name"]
    return f"{_root(version)}/namespaces/{NAMESPACE}/{RESOURCES[version][found['kind']]}/{name}"


def _discovery() -> dict[str, Object]:
    lists = {
        _root(version): {
            "kind": "APIResourceList",
            "groupVersion": version,
            "resources": [{"name": name, "namespaced": True, "kind": kind} for kind, name in kinds.items()],
        }
        for version, kinds in RESOURCES.items()
    }
    return lists | {
        "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    }
