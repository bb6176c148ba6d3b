"""Renders the chart with values, or returns helm's refusal."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "chart"
RELEASE = "rowlock"
NAMESPACE = "shop"
Object = dict[str, Any]
"""A Kubernetes object, or a part of one."""


def run(program: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Runs helm or kubeconform."""
    path = shutil.which(program)
    assert path, f"{program} is not on PATH, and the chart's tests are nothing without it: install it"
    return subprocess.run([path, *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=60)


def rendered(
    values: Object | None = None,
    *,
    apis: Sequence[str] = (),
    chart: Path = CHART,
    arguments: Sequence[str] = (),
    **more: str,
) -> list[Object]:
    """The objects of an installation with these values, in a cluster with these additional APIs."""
    result = _template(values, apis, chart, more, arguments)
    assert result.returncode == 0, result.stderr
    return [found for found in yaml.safe_load_all(result.stdout) if found]


def refusal(values: Object, arguments: Sequence[str] = (), *, chart: Path = CHART) -> str:
    """Helm's error message for values that it rejects."""
    result = _template(values, (), chart, {}, arguments)
    assert result.returncode != 0, "these values were accepted"
    return result.stderr


def text(values: Object | None = None, **more: str) -> str:
    """The rendered manifest as text."""
    result = _template(values, (), CHART, more)
    assert result.returncode == 0, result.stderr
    return result.stdout


def _template(
    values: Object | None, apis: Sequence[str], chart: Path, more: dict[str, str], arguments: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    return run(
        "helm",
        "template",
        more.get("release", RELEASE),
        str(chart),
        f"--namespace={NAMESPACE}",
        "--values=-",
        *(f"--api-versions={api}" for api in apis),
        *arguments,
        stdin=json.dumps(values or {}),
    )


def of_kind(objects: Sequence[Object], kind: str) -> dict[str, Object]:
    """The objects of a kind, by name."""
    return {found["metadata"]["name"]: found for found in objects if found["kind"] == kind}


def pod_specs(objects: Sequence[Object]) -> dict[str, Object]:
    """The specification of every pod that the objects create, by kind and name."""
    specs = {}
    for found in objects:
        name = f"{found['kind']}/{found['metadata']['name']}"
        if found["kind"] == "Pod":
            specs[name] = found["spec"]
        elif found["kind"] in {"Deployment", "StatefulSet", "Job"}:
            specs[name] = found["spec"]["template"]["spec"]
    return specs


def containers(spec: Object) -> Iterator[Object]:
    """The containers of a pod, including its init containers."""
    yield from spec.get("initContainers", [])
    yield from spec["containers"]


def variables(container: Object) -> dict[str, Any]:
    """The environment: names to values, or to `secret/key` for a value from a Secret."""
    found = {}
    for variable in container["env"]:
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        found[variable["name"]] = f"{reference['name']}/{reference['key']}" if reference else variable["value"]
    return found


def api_variables(values: Object | None = None) -> dict[str, Any]:
    """The environment of the API's container."""
    spec = pod_specs(rendered(values))[f"Deployment/{RELEASE}-api"]
    return variables(spec["containers"][0])
