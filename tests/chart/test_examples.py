"""Each example renders into valid Kubernetes objects, and matches the other examples that it needs."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.rendering import CHART, Object, api_variables, of_kind, pod_specs, rendered, run, text

EXAMPLES = CHART / "examples"
VALUES = ["gitops", "ingress", "ipv6", "production"]
OTHERS = "ScaledObject,HTTPRoute,ServiceMonitor,PodMonitor,PrometheusRule"
"""Kinds of custom resources: kubeconform has no schemas for them."""


def _read(name: str) -> Any:
    return yaml.safe_load(Path(EXAMPLES, f"{name}.yaml").read_text())


def _accepted(manifest: str) -> None:
    result = run("kubeconform", "-strict", f"-skip={OTHERS}", "-", stdin=manifest)
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_example_is_forgotten_here() -> None:
    manifests = {"argocd-application", "cloudnative-pg", "gateway", "rabbitmq-cluster"}
    assert {path.stem for path in EXAMPLES.iterdir()} == manifests | set(VALUES)


@pytest.mark.parametrize("name", VALUES)
def test_an_example_passes_lint_and_kubernetes_schemas(name: str) -> None:
    result = run("helm", "lint", "--strict", str(CHART), f"--values={EXAMPLES / name}.yaml")
    assert result.returncode == 0, result.stdout
    _accepted(text(_read(name)))


@pytest.mark.parametrize("path", sorted(Path(CHART, "ci").glob("*-values.yaml")), ids=lambda path: str(path.stem))
def test_values_of_chart_testing_pass_lint_and_schemas(path: Path) -> None:
    result = run("helm", "lint", "--strict", str(CHART), f"--values={path}")
    assert result.returncode == 0, result.stdout
    _accepted(text(yaml.safe_load(path.read_text())))


def test_defaults_and_all_options_pass_lint_and_schemas() -> None:
    _accepted(text())
    scaling = {"autoscaling": {"enabled": True}}
    everything = {
        "api": scaling,
        "expirer": scaling,
        "postgresql": {"maxConnections": 200},
        "ingress": {"enabled": True, "hosts": ["a.example"]},
        "imagePullSecrets": [{"name": "pull"}],
        "serviceAccount": {"annotations": {"a": "b"}},
        "monitoring": {"force": True, "podMonitor": {"enabled": True}, "dashboards": {"enabled": True}},
    }
    _accepted(text(everything))


def test_production_uses_the_objects_of_the_operators() -> None:
    given = api_variables(_read("production"))
    database, broker = _read("cloudnative-pg"), _read("rabbitmq-cluster")
    name = database["metadata"]["name"]
    assert f"@{name}-rw:5432/{database['spec']['bootstrap']['initdb']['database']}?" in given["ROWLOCK_DATABASE_URL"]
    made = database["spec"]["bootstrap"]["initdb"]
    assert made["postInitApplicationSQL"] == [f"grant pg_monitor to {made['owner']}"]
    assert given["PGPASSWORD"] == f"{name}-app/password"
    assert given["ROWLOCK_BROKER_URL"] == f"{broker['metadata']['name']}-default-user/connection_string"
    values = _read("production")
    allowed = int(database["spec"]["postgresql"]["parameters"]["max_connections"])
    assert values["externalPostgresql"]["maxConnections"] == allowed
    assert values["externalPostgresql"]["tls"]["caSecret"] == f"{name}-ca"
    peers = values["networkPolicy"]["externalPeers"]
    assert peers["postgresql"][0]["podSelector"]["matchLabels"] == {"cnpg.io/cluster": name}
    assert peers["rabbitmq"][0]["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": broker["metadata"]["name"]}


def test_production_uses_its_gateway_and_spreads_over_zones() -> None:
    objects = rendered(_read("production"))
    gateway = _read("gateway")
    (route,) = of_kind(objects, "HTTPRoute").values()
    assert route["spec"]["parentRefs"] == [{"name": gateway["metadata"]["name"]}]
    assert route["spec"]["hostnames"] == [gateway["spec"]["listeners"][0]["hostname"]]
    for component in ("api", "expirer"):
        (constraint,) = pod_specs(objects)[f"Deployment/rowlock-{component}"]["topologySpreadConstraints"]
        labels = of_kind(objects, "Deployment")[f"rowlock-{component}"]["spec"]["template"]["metadata"]["labels"]
        assert constraint["labelSelector"]["matchLabels"].items() <= labels.items()
        assert (constraint["topologyKey"], constraint["whenUnsatisfiable"]) == (
            "topology.kubernetes.io/zone",
            "DoNotSchedule",
        )
    assert set(of_kind(objects, "ScaledObject")) == {"rowlock-expirer"}
    assert set(of_kind(objects, "HorizontalPodAutoscaler")) == {"rowlock-api"}


def test_with_ipv6_both_components_listen_on_both_families() -> None:
    pods = pod_specs(rendered(_read("ipv6")))
    for component in ("api", "expirer"):
        (container,) = pods[f"Deployment/rowlock-{component}"]["containers"]
        assert {"name": "ROWLOCK_HOST", "value": "::"} in container["env"]


def test_gitops_renders_no_secret_and_is_reproducible() -> None:
    assert not of_kind(rendered(_read("gitops")), "Secret")
    assert text(_read("gitops")) == text(_read("gitops"))
    application = _read("argocd-application")
    assert application["spec"]["source"]["helm"]["valueFiles"] == ["examples/gitops.yaml"]


def test_extra_objects_may_contain_template_code() -> None:
    extra: list[Object | str] = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-more"}},
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Namespace }}-text'}",
    ]
    assert {"rowlock-more", "shop-text"} <= set(of_kind(rendered({"extraObjects": extra}), "ConfigMap"))
