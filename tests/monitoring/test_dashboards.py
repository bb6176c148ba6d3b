"""Rules for every dashboard, so that it works in any Grafana and explains itself."""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.monitoring.__main__ import DASHBOARDS, FILES
from dev.monitoring.alerts import ALERTS, Alert
from dev.monitoring.sale import SALE
from tests.monitoring.prometheus import as_asked
from tests.monitoring.promtool import promtool
from tests.monitoring.selectors import added_together, mistakes, unfiltered

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"
SECTIONS = ["What it means", "What customers notice", "Check", "Fix", "Afterwards"]
COLUMNS = 24
LOADED = {path.stem: json.loads(path.read_text()) for path in sorted((FILES / "dashboards").glob("*.json"))}
OF_PANELS = [
    target["expr"] for loaded in LOADED.values() for panel in loaded["panels"] for target in panel.get("targets", ())
]
EXPRESSIONS = [*OF_PANELS, *(alert.expression for alert in ALERTS)]


def _panels(loaded: Any) -> list[Any]:
    return [panel for panel in loaded["panels"] if panel["type"] != "row"]


def test_the_four_dashboards_have_the_uids_that_links_know() -> None:
    expected = ["rowlock-expiry", "rowlock-locks", "rowlock-sale", "rowlock-service"]
    assert [loaded["uid"] for loaded in LOADED.values()] == expected == list(LOADED)


@pytest.mark.parametrize("loaded", LOADED.values(), ids=LOADED)
def test_a_panel_has_description_unit_and_chosen_source(loaded: Any) -> None:
    source, _ = loaded["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == ("datasource", "datasource", "prometheus")
    assert loaded["description"]
    assert loaded["refresh"]
    ids = [panel["id"] for panel in loaded["panels"]]
    assert len(set(ids)) == len(ids)
    assert 0 not in ids
    for panel in _panels(loaded):
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"]
        for target in panel["targets"]:
            assert target["legendFormat"]
            assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    titles = [panel["title"] for panel in _panels(loaded)]
    assert len(set(titles)) == len(titles)


def test_bytes_are_shown_as_bytes() -> None:
    panels = [panel for described in DASHBOARDS for row in described.rows for panel in row.panels]
    of_bytes = [panel for panel in panels if any("_bytes" in expression for expression in panel.lines.values())]
    assert {panel.unit for panel in of_bytes} == {"bytes"}
    assert not [panel.title for panel in of_bytes if any("/ 1" in expression for expression in panel.lines.values())]


@pytest.mark.parametrize("loaded", LOADED.values(), ids=LOADED)
def test_the_reader_chooses_a_namespace_and_starts_with_all(loaded: Any) -> None:
    _, namespace = loaded["templating"]["list"]
    assert (namespace["name"], namespace["type"]) == ("namespace", "query")
    assert namespace["query"] == "label_values(rowlock_build_info, namespace)"
    assert namespace["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert (namespace["includeAll"], namespace["allValue"]) == (True, ".*")
    assert (namespace["current"]["text"], namespace["current"]["value"]) == ("All", "$__all")


@pytest.mark.parametrize("expression", OF_PANELS)
def test_a_panel_shows_the_chosen_namespace_alone(expression: str) -> None:
    assert unfiltered(expression) == []


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_keeps_namespaces_apart(alert: Alert) -> None:
    assert added_together(alert.expression) == []


def test_a_forgotten_namespace_is_found() -> None:
    chosen = 'rowlock_cache_up{namespace=~"$namespace"}'
    assert unfiltered(f"min ({chosen}) / min (rowlock_pool_size)") == ["rowlock_pool_size"]
    assert unfiltered('sum (rate(rowlock_seats_total{operation="pay"}[5m]))') == [
        'rowlock_seats_total{operation="pay"}'
    ]
    apart = f"max by (namespace, loop) ({chosen}) unless on (namespace) sum without (instance) (rowlock_pool_size)"
    assert added_together(f"{apart} or absent({chosen})") == []
    for mistaken, found in (
        ("sum (up)", "sum "),
        ("sum by (loop) (up)", "sum by (loop)"),
        ("max without (namespace) (up)", "max without (namespace)"),
        ("up and on (loop) up", "on (loop)"),
        ("up / ignoring (namespace) up", "ignoring (namespace)"),
        ("absent(up)", "up"),
    ):
        assert added_together(mistaken) == [found]


@pytest.mark.parametrize("loaded", LOADED.values(), ids=LOADED)
def test_no_panel_lies_over_another_or_beyond_the_edge(loaded: Any) -> None:
    places = [panel["gridPos"] for panel in loaded["panels"]]
    for place in places:
        assert place["x"] + place["w"] <= COLUMNS
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"], (one, other)


@pytest.mark.parametrize("loaded", LOADED.values(), ids=LOADED)
def test_a_counter_is_shown_as_a_rate_over_the_rate_interval(loaded: Any) -> None:
    for panel in _panels(loaded):
        for expression in (target["expr"] for target in panel["targets"]):
            assert all(window == "$__rate_interval" for window in re.findall(r"\[([^\]]+)\]", expression)), expression
            counted = re.findall(r"\w+_(?:total|sum|count|bucket)\b(?=[{\[)])[^\[)]*(\[)?", expression)
            assert all(counted), expression


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_names_only_what_the_catalogue_has(expression: str) -> None:
    assert mistakes(expression) == []


def test_an_unknown_metric_label_or_value_is_found() -> None:
    assert mistakes("rate(rowlock_holds_ended_total[5m])") == ["no metric rowlock_holds_ended_total"]
    assert mistakes("sum by (who) (rowlock_holds_expired_total)") == ["no label who"]
    assert mistakes('rowlock_holds_expired_total{by="broker"}') == ["no value by=broker"]
    assert mistakes('rowlock_lock_wait_seconds_bucket{lock=~"seats|rooms"}') == ["no value lock=rooms"]
    assert mistakes('rowlock_expiry_lateness_seconds_bucket{le="3.0"}') == ["no value le=3.0"]


def test_every_expression_of_a_dashboard_is_promql(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(e for described in DASHBOARDS for e in described.expressions())
    ]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", file)


def test_audit_violations_show_before_every_check_has_run(tmp_path: Path) -> None:
    panels = [panel for row in SALE.rows for panel in row.panels]
    (expression,) = next(panel for panel in panels if panel.title == "Audit").lines.values()
    found = {"owners": "NaN NaN NaN", "money": "2x2", "log": "0x2"}
    test = {
        "interval": "1m",
        "input_series": [
            {"series": f'rowlock_audit_violations{{check="{check}"}}', "values": values}
            for check, values in found.items()
        ],
        "promql_expr_test": [
            {"expr": as_asked(expression, "1m"), "eval_time": "1m", "exp_samples": [{"labels": "{}", "value": 2}]}
        ],
    }
    file = tmp_path / "tests.yaml"
    file.write_text(yaml.safe_dump({"tests": [test]}))
    promtool("test", "rules", file)


def test_alerts_are_promql_and_have_a_runbook_with_all_sections() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", FILES / "alerts.yaml")
    assert {alert.page for alert in ALERTS} == {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}
    for alert in ALERTS:
        text = (RUNBOOKS / f"{alert.page}.md").read_text()
        headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
        assert headings == SECTIONS or (alert.page.startswith("audit-") and len(headings) == 3), alert.page
        assert alert.name in text
        if headings == SECTIONS:
            assert "**First:**" in text.partition("## ")[0], alert.page


TITLES = {
    loaded["title"].removeprefix("Rowlock / "): {
        re.sub(r" \(\d+ %\)$", "", panel["title"]) for panel in loaded["panels"]
    }
    for loaded in LOADED.values()
}
"""Titles of panels and rows by dashboard, without the quantile."""


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("*.md")), ids=lambda page: page.stem)
def test_panels_named_in_a_runbook_exist(page: Path) -> None:
    assert not missing(page.read_text())


def test_a_panel_missing_from_its_dashboard_is_found() -> None:
    assert missing("- *Lag* and *fast*.") == []
    assert missing("- Dashboard *Nowhere*.") == ["Nowhere"]
    assert missing("- Dashboard *Sale*: *Refusals*. Dashboard *Service*, *CPU*, *Refusals*; *Nothing*") == [
        "Refusals",
        "Nothing",
    ]


def missing(text: str) -> list[str]:
    """Capitalised text in italics that is not the title of a dashboard, nor of a panel or row on the dashboard that the
    line names before it.
    """
    everywhere: set[str] = set().union(TITLES, *TITLES.values())
    found = []
    for line in text.splitlines():
        known = everywhere
        for is_dashboard, name in re.findall(r"([Dd]ashboard )?(?<!\*)\*([A-Z][^*]*)\*(?!\*)", line):
            if is_dashboard:
                known = TITLES.get(name, set()) | set(TITLES)
            if name not in known:
                found.append(name)
    return found
