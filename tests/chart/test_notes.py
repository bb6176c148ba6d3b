"""The notes after an installation: the next steps, and warnings for production."""

import re
import shutil
from pathlib import Path

import pytest

from tests.chart.cluster import cluster
from tests.chart.clusters import chart_with, claim
from tests.chart.rendering import CHART, Object, rendered

AS_OBJECT = """{{- define "notes" -}}
%s
{{- end -}}
apiVersion: v1
kind: ConfigMap
metadata: {name: notes}
data: {notes: {{ include "notes" . | toJson }}}
"""
"""`helm template` does not print the notes, so the test puts them into an object."""
STORES: Object = {
    **{name: {"enabled": False} for name in ("postgresql", "redis", "rabbitmq")},
    **{f"external{name}": {"host": "away", "existingSecret": "s"} for name in ("Postgresql", "Redis", "Rabbitmq")},
}
"""All stores are external."""
BUNDLED: Object = {name: {"enabled": True} if "enabled" in block else {} for name, block in STORES.items()}


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    """A copy of the chart with an object that contains its notes."""
    copy = tmp_path / "chart"
    shutil.copytree(CHART, copy)
    (copy / "templates/notes.yaml").write_text(AS_OBJECT % (copy / "templates/NOTES.txt").read_text())
    return copy


def _notes(chart: Path, values: Object | None = None, *arguments: str) -> str:
    objects = rendered(values, chart=chart, arguments=arguments)
    (found,) = [found for found in objects if found["metadata"]["name"] == "notes"]
    notes: str = found["data"]["notes"]
    return notes


def test_notes_give_commands_for_the_next_steps(chart: Path) -> None:
    said = _notes(chart)
    available = "wait --for=condition=Available --timeout=5m deployment --selector app.kubernetes.io/instance=rowlock"
    manager = "exec -it deployment/rowlock-api -c api -- python -m service.make_manager you@example.com"
    for step in (
        f"kubectl --namespace shop {available}",
        f"kubectl --namespace shop {manager}",
        "kubectl --namespace shop port-forward service/rowlock-api 3000:3000",
        "helm --namespace shop test rowlock",
    ):
        assert f"     {step}\n" in said
    assert "helm" not in _notes(chart, {"smoke": {"enabled": False}}).partition("PostgreSQL:")[0]


def test_notes_name_the_address_of_the_api_docs(chart: Path) -> None:
    ingress: Object = {"enabled": True, "hosts": ["tickets.example"]}
    assert "http://tickets.example/api-docs" in _notes(chart, {"ingress": ingress})
    tls = [{"secretName": "certificate", "hosts": ["tickets.example"]}]
    assert "https://tickets.example/api-docs" in _notes(chart, {"ingress": ingress | {"tls": tls}})
    off: Object = {"ingress": ingress, "config": {"ROWLOCK_DOCS": False}}
    assert "http://tickets.example\n" in _notes(chart, off)
    assert "/api-docs" not in _notes(chart, off)
    route: Object = {"enabled": True, "parentRefs": [{"name": "gate"}], "hostnames": ["tickets.example"]}
    assert "https://tickets.example/api-docs" in _notes(chart, {"httpRoute": route})


def test_notes_compare_all_pools_with_max_connections(chart: Path) -> None:
    # API: 2 pods with 10 each. Expirer: 2 pods with 8 each. A rollout adds a pod of each, and one for the migrations.
    assert "the pods open at most 36 of its 100 connections, and 55 during a rollout" in _notes(chart)
    scaled = {"api": {"autoscaling": {"enabled": True, "maxReplicas": 4}, "poolSize": 5}, "expirer": {"replicas": 1}}
    assert "the pods open at most 28 of its 100 connections, and 42 during" in _notes(chart, scaled)
    keda = {"expirer": {"keda": {"enabled": True, "maxReplicas": 3}}, "postgresql": {"maxConnections": 300}}
    assert "the pods open at most 44 of its 300 connections, and 63 during" in _notes(chart, keda)


def test_notes_say_that_an_autoscaler_replaces_replicas(chart: Path) -> None:
    assert "replicas is not used" not in _notes(chart)
    said = _notes(chart, {"api": {"replicas": 4, "autoscaling": {"enabled": True}}})
    assert "api.autoscaling sets the number of pods, from 2 to 5. api.replicas is not used." in said
    assert "expirer.replicas" not in said
    said = _notes(chart, {"expirer": {"keda": {"enabled": True}}})
    assert "expirer.keda sets the number of pods, from 1 to 5. expirer.replicas is not used." in said


def test_notes_name_the_condition_of_an_ingress_without_class(chart: Path) -> None:
    ingress: Object = {"enabled": True, "hosts": ["a.example"]}
    condition = "only if the cluster has a default IngressClass"
    assert condition in _notes(chart, {"ingress": ingress})
    assert condition not in _notes(chart, {"ingress": ingress | {"className": "traefik"}})


def test_notes_say_where_a_wrong_password_shows(chart: Path) -> None:
    # Ready pods prove nothing about these two.
    where = "grep -E 'Redis is down|step failed'"
    assert where in _notes(chart, STORES)
    assert where not in _notes(chart)


def test_notes_name_missing_secrets_and_keys(chart: Path) -> None:
    values: Object = STORES | {"imagePullSecrets": [{"name": "pull"}], "auth": {"existingSecret": "tokens"}}
    tokens: Object = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tokens"}}
    stores: Object = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"password": "cA=="}}
    assert "Secrets are missing" not in _notes(chart, values)
    with cluster([tokens, stores]) as arguments:
        warning = _notes(chart, values, *arguments).partition("WARNING: Secrets are missing in namespace shop")[2]
    told = [line.strip() for line in warning.partition("\n\n")[0].splitlines()[1:]]
    assert told == ["pull (imagePullSecrets)", "tokens (auth.existingSecret) has no key token-secret"]
    with cluster([tokens | {"data": {"token-secret": "dA=="}}, stores]) as arguments:
        assert "Secrets are missing" not in _notes(chart, values | {"imagePullSecrets": []}, *arguments)


@pytest.mark.parametrize(
    ("values", "warning"),
    [
        (BUNDLED, "WARNING: this release includes postgresql, redis, rabbitmq for a trial"),
        ({"redis": {"enabled": True}, "externalRedis": {}}, "WARNING: this release includes redis for a trial"),
        ({"ingress": {"enabled": True, "hosts": ["a.example"]}}, "api.trustedProxies is empty"),
        ({"service": {"type": "LoadBalancer"}}, "the Service is a LoadBalancer without externalTrafficPolicy: Local"),
        ({"monitoring": {"podMonitor": {"enabled": True}}}, "this cluster has no PodMonitor"),
        ({"monitoring": {"force": True, "prometheusRule": {"enabled": True}}}, "the alerts have no links"),
    ],
)
def test_notes_warn_of_a_risk_in_production(chart: Path, values: Object, warning: str) -> None:
    (told,) = re.findall(r"WARNING: .*", _notes(chart, STORES | values))
    assert warning in told


def test_notes_name_the_data_that_stay_behind(tmp_path: Path) -> None:
    copy = chart_with(tmp_path, claim("postgresql", "8Gi"))
    (copy / "templates/notes.yaml").write_text(AS_OBJECT % (copy / "templates/NOTES.txt").read_text())
    values = STORES | {"postgresql": {"enabled": False, "dataStayBehind": True}}
    (told,) = re.findall(r"WARNING: .*", _notes(copy, values))
    assert "are still in the claim data-rowlock-postgresql-0" in told


def test_notes_warn_only_with_a_reason(chart: Path) -> None:
    values: Object = {
        **STORES,
        "ingress": {"enabled": True, "hosts": ["a.example"]},
        "api": {"trustedProxies": ["10.0.0.0/8"]},
        "service": {"type": "NodePort", "externalTrafficPolicy": "Local"},
        "monitoring": {"podMonitor": {"enabled": True}, "force": True},
    }
    assert "WARNING" not in _notes(chart, values)


def test_notes_on_generated_secrets_mention_gitops(chart: Path) -> None:
    assert "secrets.generate" in _notes(chart)
    named: Object = {name: {"auth": {"existingSecret": "s"}} for name in ("postgresql", "redis", "rabbitmq")}
    named["rabbitmq"]["reader"] = {"existingSecret": "s"}
    named |= {"secrets": {"generate": False}, "auth": {"existingSecret": "s"}, "smoke": {"existingSecret": "s"}}
    assert "secrets.generate" not in _notes(chart, named)
