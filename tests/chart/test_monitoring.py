"""Objects for the Prometheus operator and Grafana's sidecar, created only if enabled and known to the cluster."""

import shutil
from pathlib import Path

import pytest

from tests.chart.rendering import CHART, Object, of_kind, pod_specs, rendered

ALL = {name: {"enabled": True} for name in ("serviceMonitor", "prometheusRule", "dashboards")}
APIS = [f"monitoring.coreos.com/v1/{kind}" for kind in ("ServiceMonitor", "PodMonitor", "PrometheusRule")]


def _kinds(objects: list[Object]) -> set[str]:
    return {found["kind"] for found in objects if found["apiVersion"].startswith("monitoring.coreos.com")}


def test_monitoring_objects_need_a_value_and_a_known_kind() -> None:
    assert _kinds(rendered(apis=APIS)) == set()
    assert _kinds(rendered({"monitoring": ALL})) == set()
    assert "ServiceMonitor" in _kinds(rendered({"monitoring": ALL}, apis=APIS))
    assert "ServiceMonitor" in _kinds(rendered({"monitoring": ALL | {"force": True}}))
    assert _kinds(rendered({"monitoring": {"podMonitor": {"enabled": True}}}, apis=APIS[1:2])) == {"PodMonitor"}


@pytest.mark.parametrize(("component", "port"), [("api", 9100), ("expirer", 9101)])
def test_a_monitor_scrapes_the_port_named_metrics(component: str, port: int) -> None:
    wanted = {
        "monitoring": {"serviceMonitor": {"enabled": True}, "labels": {"release": "prometheus"}, "interval": "10s"}
    }
    objects = rendered(wanted, apis=APIS)
    name = f"rowlock-{component}-metrics"
    monitor = of_kind(objects, "ServiceMonitor")[name]
    service = of_kind(objects, "Service")[name]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["endpoints"] == [{"port": "metrics", "interval": "10s"}]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert service["spec"]["ports"] == [{"name": "metrics", "port": port, "targetPort": "metrics"}]
    ports = pod_specs(objects)[f"Deployment/rowlock-{component}"]["containers"][0]["ports"]
    assert {"name": "metrics", "containerPort": port} in ports


def test_a_monitor_finds_one_service_of_each_component() -> None:
    objects = rendered({"monitoring": ALL}, apis=APIS)
    for name, monitor in of_kind(objects, "ServiceMonitor").items():
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        found = [
            key
            for key, service in of_kind(objects, "Service").items()
            if wanted <= service["metadata"]["labels"].items()
        ]
        assert found == [name]


def test_a_pod_monitor_selects_the_pods() -> None:
    objects = rendered({"monitoring": {"podMonitor": {"enabled": True}}}, apis=APIS)
    for component in ("api", "expirer"):
        monitor = of_kind(objects, "PodMonitor")[f"rowlock-{component}-metrics"]["spec"]
        labels = of_kind(objects, "Deployment")[f"rowlock-{component}"]["spec"]["template"]["metadata"]["labels"]
        assert monitor["selector"]["matchLabels"] == labels
        assert monitor["podMetricsEndpoints"] == [{"port": "metrics", "interval": "30s"}]


def test_alerts_and_dashboards_are_not_parsed_as_templates(tmp_path: Path) -> None:
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart)
    files = chart / "files"
    (files / "dashboards").mkdir(parents=True, exist_ok=True)
    (files / "alerts.yaml").write_text(
        "groups:\n  - name: a\n    rules: [{alert: A, expr: '1', annotations: {x: '{{ $value }}'}}]\n"
    )
    (files / "dashboards" / "seats.json").write_text('{"title": "{{ seats }}"}\n')
    objects = rendered({"monitoring": ALL}, apis=APIS, chart=chart)
    rule = of_kind(objects, "PrometheusRule")["rowlock-alerts"]["spec"]
    assert rule["groups"][0]["rules"][0]["annotations"] == {"x": "{{ $value }}"}
    dashboard = of_kind(objects, "ConfigMap")["rowlock-dashboard-seats"]
    assert dashboard["data"] == {"seats.json": '{"title": "{{ seats }}"}\n'}
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
