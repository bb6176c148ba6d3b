"""Alerts and the runbooks that they link to."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from dev.chart_docs import CHART, SET_BY_VALUES
from dev.monitoring.alerts import ALERTS
from service.settings import PREFIX
from tests.chart.rendering import NAMESPACE, RELEASE, of_kind, rendered

RUNBOOKS = CHART.parent / "docs" / "runbooks"
REFUSED = {f"{PREFIX}{name.upper()}" for name in SET_BY_VALUES}
"""Settings that `config` does not take."""
VALUES = set(re.findall(r"^\| `([^`]+)`", (CHART / "README.md").read_text(), re.MULTILINE))


def test_alerts_link_to_their_page_below_runbook_url() -> None:
    wanted = {
        "monitoring": {"force": True, "prometheusRule": {"enabled": True, "runbookUrl": "https://shop.example/r/"}}
    }
    rule = of_kind(rendered(wanted), "PrometheusRule")["rowlock-alerts"]
    urls = [alert["annotations"]["runbook_url"] for alert in rule["spec"]["groups"][0]["rules"]]
    assert urls
    assert all(url.startswith("https://shop.example/r/") and url.endswith(".md") for url in urls)
    assert "docs/runbooks" not in yaml.safe_dump(rule)


def _addresses(chart: Path) -> set[str]:
    wanted = {"monitoring": {"force": True, "prometheusRule": {"enabled": True}}}
    rule = of_kind(rendered(wanted, chart=chart), "PrometheusRule")["rowlock-alerts"]
    annotations = [alert["annotations"] for alert in rule["spec"]["groups"][0]["rules"]]
    return {found["runbook_url"].rpartition("/")[0] for found in annotations if "runbook_url" in found}


def test_a_published_chart_links_to_its_own_version(tmp_path: Path) -> None:
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart)
    written = (chart / "Chart.yaml").read_text()
    assert _addresses(chart) == set()
    (chart / "Chart.yaml").write_text(f"{written}\nhome: https://code.example/rowlock\n")
    version = yaml.safe_load(written)["appVersion"]
    assert _addresses(chart) == {f"https://code.example/rowlock/blob/v{version}/docs/runbooks"}


def test_the_migration_alert_matches_only_its_own_release() -> None:
    wanted = {
        "monitoring": {"force": True, "prometheusRule": {"enabled": True}},
        "fullnameOverride": "tickets",
    }
    objects = rendered(wanted)
    rules = of_kind(objects, "PrometheusRule")["tickets-alerts"]["spec"]["groups"][0]["rules"]
    (expression,) = [rule["expr"] for rule in rules if rule["alert"] == "RowlockMigrationFailed"]
    matchers = dict(re.findall(r'(\w+)=~?"([^"]*)"', expression))
    (job,) = of_kind(objects, "Job")
    assert matchers["namespace"] == NAMESPACE
    assert re.fullmatch(matchers["job_name"], job)
    assert not re.fullmatch(matchers["job_name"], f"other-{job}")


def test_absent_asks_for_the_releases_own_namespace() -> None:
    wanted = {"monitoring": {"force": True, "prometheusRule": {"enabled": True}}}
    rules = of_kind(rendered(wanted), "PrometheusRule")["rowlock-alerts"]["spec"]["groups"][0]["rules"]
    absent = [found for rule in rules for found in re.findall(r"absent\(.*\)", rule["expr"])]
    assert absent
    assert set(absent) == {f'absent(rowlock_build_info{{namespace="{NAMESPACE}"}})'}


def test_dashboards_are_config_maps_for_grafanas_sidecar() -> None:
    maps = of_kind(rendered({"monitoring": {"dashboards": {"enabled": True}}}), "ConfigMap")
    found = {name for name, made in maps.items() if made["metadata"]["labels"].get("grafana_dashboard") == "1"}
    assert found == {f"rowlock-dashboard-rowlock-{name}" for name in ("sale", "locks", "expiry", "service")}


def test_commands_in_runbooks_name_objects_of_the_chart() -> None:
    objects = rendered({"api": {"keda": {"enabled": True, "triggers": [{"type": "cron", "metadata": {}}]}}})
    made = {(kind.lower(), name) for kind in ("Deployment", "ScaledObject") for name in of_kind(objects, kind)}
    containers = [
        container
        for deployment in of_kind(objects, "Deployment").values()
        for container in deployment["spec"]["template"]["spec"]["containers"]
    ]
    ports = {str(port["containerPort"]) for container in containers for port in container["ports"]}
    text = "".join(page.read_text() for page in RUNBOOKS.glob("*.md"))
    named = re.findall(r"\b(deployment|scaledobject)[/ ]NAME-(\w+)", text)
    assert {kind for kind, _ in named} == {"deployment", "scaledobject"}
    assert {(kind, f"{RELEASE}-{name}") for kind, name in named} <= made
    forwarded = set(re.findall(r"port-forward \S+ (\d+)", text)) | set(re.findall(r"localhost:(\d+)", text))
    assert forwarded
    assert forwarded <= ports


def test_the_index_lists_severity_and_delay_of_each_alert() -> None:
    rows = re.findall(
        r"^\| \[(\w+)\]\((.+)\.md\) \| (\w+) \| (.+) \|$", (RUNBOOKS / "README.md").read_text(), re.MULTILINE
    )
    assert rows == [(alert.name, alert.page, alert.severity, _in_words(alert.lasting)) for alert in ALERTS]


def _in_words(lasting: str) -> str:
    number, unit = int(lasting[:-1]), {"s": "second", "m": "minute", "h": "hour"}[lasting[-1]]
    return f"{number} {unit}{'' if number == 1 else 's'}" if number else "at once"


def test_the_deadlock_page_lists_all_connection_names() -> None:
    code = "".join(
        path.read_text() for folder in ("service", "expirer") for path in (CHART.parent / folder).rglob("*.py")
    )
    ours = set(re.findall(r'create_engine\([^"]*"(rowlock-[\w-]+)"', code))
    assert ours
    assert set(re.findall(r"`(rowlock-[\w-]+)`", (RUNBOOKS / "deadlocks.md").read_text())) == ours


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("*.md")), ids=lambda page: page.stem)
def test_a_setting_outside_config_is_named_with_its_value(page: Path) -> None:
    assert lonely(page.read_text()) == []


def test_a_setting_without_its_value_is_found() -> None:
    assert lonely("raise `ROWLOCK_POOL_SIZE`; `api.nothing`\nor `ROWLOCK_SWEEP_BATCH_MAX`") == ["ROWLOCK_POOL_SIZE"]
    assert lonely("`api.poolSize` in the chart, `ROWLOCK_POOL_SIZE` elsewhere") == []
    assert lonely("Elsewhere than in the chart, `ROWLOCK_METRICS_PORT`") == []


def lonely(text: str) -> list[str]:
    """Settings that `config` rejects, on a line that does not name the chart's value for them."""
    return [
        name
        for line in text.splitlines()
        if "elsewhere than in the chart" not in line.lower() and not VALUES & set(re.findall("`([^`]+)`", line))
        for name in re.findall(rf"{PREFIX}\w+", line)
        if name in REFUSED
    ]
