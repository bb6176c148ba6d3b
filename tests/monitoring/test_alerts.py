"""Each alert with its real windows, as the chart has it: it fires when it should, and not just below."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.monitoring.__main__ import FILES
from dev.monitoring.alerts import ALERTS
from dev.monitoring.rules import rules
from tests.monitoring.cases import CASES, Case
from tests.monitoring.promtool import promtool

NAMES = {alert.name for alert in ALERTS}
LONG_MINUTES = 200


def _unit_test(case: Case) -> dict[str, Any]:
    labels = "".join(f', {name}="{value}"' for name, value in case.labels.items())
    firing = f'count (ALERTS{{alertname="{case.alert}", alertstate="firing"{labels}}}) or vector(0)'
    return {
        "name": f"{case.alert}: {case.what}",
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
        "promql_expr_test": [
            {
                "expr": firing,
                "eval_time": f"{case.minute}m",
                "exp_samples": [{"labels": "{}", "value": int(case.fires)}],
            }
        ],
    }


def _check(case: Case, file: Path, rules_file: Path) -> None:
    # A case of days is of an alert that does not wait: one evaluation at its end is enough, and thousands take minutes.
    interval = f"{case.minute if case.minute > LONG_MINUTES else 1}m"
    tests = {"rule_files": [str(rules_file)], "evaluation_interval": interval, "tests": [_unit_test(case)]}
    file.write_text(yaml.safe_dump(tests))
    promtool("test", "rules", file)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}: {case.what}")
def test_an_alert_fires_when_it_should_and_only_then(case: Case, tmp_path: Path) -> None:
    _check(case, tmp_path / "tests.yaml", FILES / "alerts.yaml")


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    for fires in (True, False):
        assert {case.alert for case in CASES if case.fires is fires} == NAMES


def test_a_factor_shortens_every_window_every_wait_and_every_bound_in_seconds() -> None:
    def written(factor: int) -> dict[str, Any]:
        return {rule["alert"]: rule for rule in yaml.safe_load(rules(factor))["groups"][0]["rules"]}

    real, short = written(1), written(20)
    assert "[3d]" in real["RowlockAvailabilityBurnsSlowly"]["expr"]
    assert "[12960000ms]" in short["RowlockAvailabilityBurnsSlowly"]["expr"]
    assert (real["RowlockOverdueHold"]["for"], short["RowlockOverdueHold"]["for"]) == ("1m", "3000ms")
    assert real["RowlockOverdueHold"]["expr"].endswith("> 10")
    assert short["RowlockOverdueHold"]["expr"].endswith("> 0.5")
