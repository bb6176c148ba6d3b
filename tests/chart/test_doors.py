"""Access for customers: Service, Ingress and HTTPRoute, and the trusted proxies."""

from pathlib import Path

import pytest
import yaml

from service.settings import Settings
from tests.chart.rendering import CHART, Object, api_variables, of_kind, rendered

INGRESS: Object = {"ingress": {"enabled": True, "hosts": ["tickets.example", "www.tickets.example"]}}
ROUTE: Object = {"httpRoute": {"enabled": True, "parentRefs": [{"name": "gate"}], "hostnames": ["tickets.example"]}}
LIMITS = ("ROWLOCK_ADDRESS_REQUESTS_PER_MINUTE", "ROWLOCK_ADDRESS_SIGN_INS_PER_MINUTE")


def test_by_default_the_api_is_not_exposed() -> None:
    objects = rendered()
    assert not of_kind(objects, "Ingress")
    assert not of_kind(objects, "HTTPRoute")
    assert {found["spec"].get("type", "ClusterIP") for found in of_kind(objects, "Service").values()} == {"ClusterIP"}


def test_the_service_exposes_the_api_and_no_metrics() -> None:
    values = {"service": {"type": "NodePort", "port": 80, "nodePort": 30080, "externalTrafficPolicy": "Local"}}
    service = of_kind(rendered(values), "Service")["rowlock-api"]["spec"]
    assert service["ports"] == [{"name": "http", "port": 80, "targetPort": "http", "nodePort": 30080}]
    assert (service["type"], service["externalTrafficPolicy"]) == ("NodePort", "Local")
    assert service["selector"]["app.kubernetes.io/component"] == "api"


def test_an_ingress_routes_every_host_to_the_service() -> None:
    tls = [{"secretName": "certificate", "hosts": ["tickets.example"]}]
    values = {"ingress": INGRESS["ingress"] | {"className": "traefik", "tls": tls, "annotations": {"a": "b"}}}
    ingress = of_kind(rendered(values), "Ingress")["rowlock-api"]
    assert ingress["metadata"]["annotations"] == {"a": "b"}
    assert ingress["spec"]["ingressClassName"] == "traefik"
    assert ingress["spec"]["tls"] == tls
    assert [rule["host"] for rule in ingress["spec"]["rules"]] == INGRESS["ingress"]["hosts"]
    for rule in ingress["spec"]["rules"]:
        (path,) = rule["http"]["paths"]
        assert path["backend"] == {"service": {"name": "rowlock-api", "port": {"name": "http"}}}
    assert "ingressClassName" not in of_kind(rendered(INGRESS), "Ingress")["rowlock-api"]["spec"]


def test_a_route_connects_its_gateway_to_the_service() -> None:
    route = of_kind(rendered(ROUTE | {"service": {"port": 80}}), "HTTPRoute")["rowlock-api"]["spec"]
    assert route["parentRefs"] == [{"name": "gate"}]
    assert route["hostnames"] == ["tickets.example"]
    assert [rule["backendRefs"] for rule in route["rules"]] == [[{"name": "rowlock-api", "port": 80}]]


def test_metrics_are_not_exposed() -> None:
    for values in (INGRESS, ROUTE):
        door = [found for found in rendered(values) if found["kind"] in {"Ingress", "HTTPRoute"}]
        assert "metrics" not in str(door)


@pytest.mark.parametrize("door", [INGRESS, ROUTE], ids=["ingress", "route"])
def test_an_unnamed_proxy_switches_address_limits_off(door: Object) -> None:
    given = api_variables(door)
    for name in LIMITS:
        field = Settings.model_fields[name.removeprefix("ROWLOCK_").lower()]
        assert int(given[name]) == next(bound.le for bound in field.metadata if hasattr(bound, "le"))
    assert "ROWLOCK_TRUSTED_PROXIES" not in given


@pytest.mark.parametrize("door", [INGRESS, ROUTE], ids=["ingress", "route"])
def test_a_named_proxy_keeps_address_limits(door: Object) -> None:
    given = api_variables(door | {"api": {"trustedProxies": ["10.0.0.0/8", "192.0.2.7"]}})
    assert given["ROWLOCK_TRUSTED_PROXIES"] == "10.0.0.0/8,192.0.2.7"
    assert not set(LIMITS) & set(given)


def test_a_configured_limit_applies_behind_any_proxy() -> None:
    given = api_variables(INGRESS | {"config": {LIMITS[0]: 50}})
    assert (given[LIMITS[0]], given[LIMITS[1]]) == ("50", "1000000")


def test_make_up_answers_at_127_0_0_1_as_well() -> None:
    values = yaml.safe_load(Path(CHART.parent, "k8s/values.yaml").read_text())
    ingresses = of_kind(rendered(values), "Ingress").values()
    rules = [rule for ingress in ingresses for rule in ingress["spec"]["rules"]]
    assert {rule.get("host") for rule in rules} == {"rowlock.localhost", None}
    backends = [rule["http"]["paths"][0]["backend"]["service"] for rule in rules]
    assert backends == [{"name": "rowlock-api", "port": {"name": "http"}}] * 2
    assert "http://127.0.0.1:$port/api-docs" in Path(CHART.parent, "k8s/up").read_text()
