"""A chart whose templates find objects in a cluster: without one, `lookup` finds nothing."""

import json
import shutil
from base64 import b64encode
from pathlib import Path

from tests.chart.rendering import CHART, RELEASE, Object

FOUND = """{{- define "rowlock.live" -}}
{{- $objects := .root.Files.Get "live.json" | fromJson -}}
{{- index $objects (printf "%s %s %s" .version .kind .name) | default dict | toJson -}}
{{- end -}}
"""
"""Replaces the only template that asks the cluster."""


def chart_with(folder: Path, *objects: Object) -> Path:
    """A copy of the chart whose cluster has these objects."""
    copy = folder / "chart"
    shutil.copytree(CHART, copy, dirs_exist_ok=True)
    (copy / "templates/_live.tpl").write_text(FOUND)
    live = {f"{found['apiVersion']} {found['kind']} {found['metadata']['name']}": found for found in objects}
    (copy / "live.json").write_text(json.dumps(live))
    return copy


def secret(name: str, release: str = RELEASE, **data: str) -> Object:
    """A Secret of a release."""
    encoded = {key: b64encode(value.encode()).decode() for key, value in data.items()}
    owner = {"meta.helm.sh/release-name": release}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "annotations": owner}, "data": encoded}


def claim(store: str, size: str, storage_class: str = "standard") -> Object:
    """The claim of a bundled store."""
    spec = {"storageClassName": storage_class, "resources": {"requests": {"storage": size}}}
    metadata = {"name": f"data-{RELEASE}-{store}-0"}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def stateful_set(store: str, *templates: Object, policy: str = "Parallel") -> Object:
    """A bundled store that runs, with the claims from these templates."""
    spec = {"podManagementPolicy": policy} | ({"volumeClaimTemplates": list(templates)} if templates else {})
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": f"{RELEASE}-{store}"}, "spec": spec}
