"""Each alert of the chart with its real windows: it fires when it should, and not just below."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.monitoring.__main__ import FILES
from dev.monitoring.alerts import ALERTS
from dev.monitoring.rules import rules
from tests.monitoring.cases import BUILD, CASES, PARKED, Case, Series
from tests.monitoring.promtool import promtool

NAMES = {alert.name for alert in ALERTS}
LONG_MINUTES = 200


def _unit_test(name: str, series: Series, minute: int, **asked: Any) -> dict[str, Any]:
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in series.items()],
    } | {kind: [tried | {"eval_time": f"{minute}m"} for tried in asked_so] for kind, asked_so in asked.items()}


def _run(test: dict[str, Any], minute: int, tmp_path: Path) -> None:
    # For cases of several days, an evaluation every minute would take minutes.
    interval = f"{30 if minute > LONG_MINUTES else 1}m"
    tests = {"rule_files": [str(FILES / "alerts.yaml")], "evaluation_interval": interval, "tests": [test]}
    file = tmp_path / "tests.yaml"
    file.write_text(yaml.safe_dump(tests))
    promtool("test", "rules", file)


def _with_build(series: Series, minutes: int) -> Series:
    return {BUILD: f"1x{minutes}"} | series


def _in_namespace(series: Series, namespace: str) -> Series:
    """The same series, in a namespace."""
    ours = f'namespace="{namespace}"'
    moved = {}
    for name, values in series.items():
        metric, _, labels = name.removesuffix("}").partition("{")
        others = [label for label in filter(None, labels.split(", ")) if not label.startswith("namespace=")]
        moved[f"{metric}{{{', '.join([ours, *others])}}}"] = values
    return moved


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}: {case.what}")
def test_an_alert_fires_when_it_should_and_only_then(case: Case, tmp_path: Path) -> None:
    labels = "".join(f', {name}="{value}"' for name, value in case.labels.items())
    firing = f'count (ALERTS{{alertname="{case.alert}", alertstate="firing"{labels}}}) or vector(0)'
    asked = {"expr": firing, "exp_samples": [{"labels": "{}", "value": int(case.fires)}]}
    series = _with_build(case.series, case.minute)
    _run(_unit_test(case.what, series, case.minute, promql_expr_test=[asked]), case.minute, tmp_path)


# Cases without any series are left out: they belong to no release.
@pytest.mark.parametrize(
    "burning",
    [case for case in CASES if case.fires and not case.series.get(BUILD, "").startswith("_")],
    ids=lambda case: f"{case.alert}: {case.what}",
)
def test_only_the_burning_one_of_two_releases_has_an_alert(burning: Case, tmp_path: Path) -> None:
    name = burning.alert
    healthy = next(case for case in CASES if case.alert == name and not case.fires)
    series = {
        key: values
        for case, namespace in ((burning, "burning"), (healthy, "healthy"))
        for key, values in _in_namespace(_with_build(case.series, burning.minute), namespace).items()
    }
    firing = f'count by (namespace) (ALERTS{{alertname="{name}", alertstate="firing"}})'
    asked = {"expr": firing, "exp_samples": [{"labels": '{namespace="burning"}', "value": 1}]}
    _run(_unit_test(name, series, burning.minute, promql_expr_test=[asked]), burning.minute, tmp_path)


@pytest.mark.parametrize(("namespace", "where"), [("", ""), ("shop", " (namespace shop)")])
def test_an_alert_names_its_namespace_if_it_has_one(namespace: str, where: str, tmp_path: Path) -> None:
    alert = next(alert for alert in ALERTS if alert.name == "RowlockParkedMessages")
    parked = {PARKED: "1x10"}
    fired = {
        "exp_labels": {"severity": "ticket"} | ({"namespace": namespace} if namespace else {}),
        "exp_annotations": {
            "summary": f"Parked dead letters: 1{where}",
            "runbook_url": f"docs/runbooks/{alert.page}.md",
        },
    }
    series = _in_namespace(parked, namespace) if namespace else parked
    asked = {"alertname": alert.name, "exp_alerts": [fired]}
    _run(_unit_test(alert.name, series, 3, alert_rule_test=[asked]), 3, tmp_path)


def test_every_alert_has_a_firing_and_a_silent_case() -> None:
    for fires in (True, False):
        assert {case.alert for case in CASES if case.fires is fires} == NAMES


def test_a_factor_shortens_all_windows_waits_and_bounds() -> None:
    def written(factor: int) -> dict[str, Any]:
        return {rule["alert"]: rule for rule in yaml.safe_load(rules(factor))["groups"][0]["rules"]}

    real, short = written(1), written(20)
    assert "[3d]" in real["RowlockAvailabilityBurnsSlowly"]["expr"]
    assert "[12960000ms]" in short["RowlockAvailabilityBurnsSlowly"]["expr"]
    assert "[3d:5m]" in real["RowlockAuditIncomplete"]["expr"]
    assert "[12960000ms:15000ms]" in short["RowlockAuditIncomplete"]["expr"]
    assert (real["RowlockOverdueHold"]["for"], short["RowlockOverdueHold"]["for"]) == ("1m", "3000ms")
    assert real["RowlockOverdueHold"]["expr"].endswith("> 10")
    assert short["RowlockOverdueHold"]["expr"].endswith("> 0.5")
