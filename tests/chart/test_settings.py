"""The chart's variables match the service's settings, and so do the defaults that the chart relies on."""

import re
from pathlib import Path
from typing import Any

import yaml

from dev.chart_docs import SET_BY_VALUES
from service.settings import PREFIX, Settings
from tests.chart.rendering import CHART, RELEASE, api_variables, containers, pod_specs, rendered, variables

ROOT = CHART.parent
GIVEN = {
    "database_url": "postgresql://rowlock@db/rowlock",
    "redis_url": "redis://cache",
    "broker_url": "amqp://broker",
    "token_secret": "t" * 32,
}
"""Settings that come from a Secret, wholly or in part."""
SMOKE = {"ROWLOCK_SMOKE_EMAIL", "ROWLOCK_SMOKE_PASSWORD"}
"""Variables of the smoke test only."""


def test_every_variable_in_the_chart_is_a_setting() -> None:
    settings = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    for path in sorted(CHART.rglob("*")):
        if path.is_file():
            assert set(re.findall(r"ROWLOCK_[A-Z0-9_]+", path.read_text())) - SMOKE <= settings, path


def test_the_service_accepts_the_charts_variables() -> None:
    values: dict[str, Any] = {
        "api": {"trustedProxies": ["10.0.0.0/8", "2001:db8::/32"], "poolSize": 7, "shutdownSeconds": 9},
        "config": {"ROWLOCK_COUNTS_SECONDS": 0.5, "ROWLOCK_OPEN_MANAGER_SIGN_UP": True, "ROWLOCK_WRITES_MAX": 100_000},
    }
    given = {
        name.removeprefix(PREFIX).lower(): value for name, value in api_variables(values).items() if name[:8] == PREFIX
    }
    settings = Settings(**(given | GIVEN))
    assert [str(network) for network in settings.trusted_proxies] == ["10.0.0.0/8", "2001:db8::/32"]
    assert (settings.pool_size, settings.shutdown_seconds, settings.writes_max) == (7, 9, 100_000)
    assert (settings.counts_seconds, settings.open_manager_sign_up) == (0.5, True)


def test_each_setting_is_a_value_or_in_config() -> None:
    values = {"api": {"trustedProxies": ["10.0.0.0/8"]}, "config": dict.fromkeys(_config(), None)}
    relied_on = {f"{PREFIX}{name}" for name in ("PORT", "EXPIRER_PORT", "METRICS_PORT", "EXPIRER_METRICS_PORT")}
    ours = {f"{PREFIX}{name.upper()}" for name in SET_BY_VALUES}
    assert {name for name in api_variables({"api": values["api"]}) if name.startswith(PREFIX)} == ours - relied_on
    assert ours | set(_config()) == {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}


def _config() -> dict[str, Any]:
    schema = yaml.safe_load(Path(CHART, "values.schema.json").read_text())
    found: dict[str, Any] = schema["definitions"]["config"]["properties"]
    return found


def test_all_containers_get_the_same_stores_and_keys() -> None:
    specs = pod_specs(rendered())
    seen = [variables(c) for name, spec in specs.items() for c in containers(spec) if c["image"].startswith("rowlock:")]
    # All except the smoke test's container, which acts as a customer.
    assert len(seen) == 7
    stores = [{name: value for name, value in of_one.items() if name.endswith("_URL")} for of_one in seen]
    assert stores.count(stores[0]) == 6
    assert set(stores[0]) == {"ROWLOCK_DATABASE_URL", "ROWLOCK_REDIS_URL", "ROWLOCK_BROKER_URL"}
    assert [of_one for of_one in seen if set(of_one) == SMOKE]


def test_container_ports_match_the_settings() -> None:
    specs = pod_specs(rendered())
    fields = Settings.model_fields
    own = {"api": ("port", "metrics_port"), "expirer": ("expirer_port", "expirer_metrics_port")}
    for component, names in own.items():
        ports = specs[f"Deployment/{RELEASE}-{component}"]["containers"][0]["ports"]
        assert [port["containerPort"] for port in ports] == [fields[name].default for name in names]


def test_the_shutdown_allowance_matches_gunicorn() -> None:
    server = Path(ROOT, "service/gunicorn.conf.py").read_text()
    assert "graceful_timeout = _settings.shutdown_seconds + 10\n" in server
    assert "shutdownSeconds 10 }}" in Path(CHART, "templates/_checks.tpl").read_text()


def test_app_version_is_the_projects_version() -> None:
    chart = yaml.safe_load(Path(CHART, "Chart.yaml").read_text())
    project = re.search(r'^version = "(.*)"$', Path(ROOT, "pyproject.toml").read_text(), re.MULTILINE)
    assert project
    assert chart["appVersion"] == project.group(1)
