"""Where an alert sends whoever is called at night."""

import re

import yaml

from tests.chart.rendering import NAMESPACE, of_kind, rendered


def test_an_alert_names_its_page_below_the_address_that_the_values_give() -> None:
    wanted = {
        "monitoring": {"force": True, "prometheusRule": {"enabled": True, "runbookUrl": "https://shop.example/r/"}}
    }
    rule = of_kind(rendered(wanted), "PrometheusRule")["rowlock-alerts"]
    urls = [alert["annotations"]["runbook_url"] for alert in rule["spec"]["groups"][0]["rules"]]
    assert urls
    assert all(url.startswith("https://shop.example/r/") and url.endswith(".md") for url in urls)
    assert "docs/runbooks" not in yaml.safe_dump(rule)


def test_the_alert_on_migrations_is_about_the_jobs_of_its_own_release() -> None:
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


def test_the_dashboards_of_the_chart_are_config_maps_that_the_sidecar_finds() -> None:
    maps = of_kind(rendered({"monitoring": {"dashboards": {"enabled": True}}}), "ConfigMap")
    found = {name for name, made in maps.items() if made["metadata"]["labels"].get("grafana_dashboard") == "1"}
    assert found == {f"rowlock-dashboard-rowlock-{name}" for name in ("sale", "locks", "expiry", "service")}
