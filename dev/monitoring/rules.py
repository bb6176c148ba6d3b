"""Turns the alerts into Prometheus's rules; a factor shortens every length of time, for tests on live servers."""

import re
from typing import Any

import yaml

from dev.monitoring.alerts import ALERTS, Alert

RUNBOOKS = "docs/runbooks/"
"""The chart replaces it with `monitoring.prometheusRule.runbookUrl`."""
WHERE = "{{ with $labels.namespace }} (namespace {{ . }}){{ end }}"
SECONDS_OF = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
LENGTH = re.compile(r"(\d+)([smhd])")
RANGE = re.compile(r"\[\d+[smhd](?::\d+[smhd])?\]")
NUMBER = re.compile(r"SECONDS\((\d+)\)")


def rules(factor: int = 1) -> str:
    """The file of rules in YAML; with a factor of 20 an hour is three minutes."""
    group: dict[str, Any] = {"name": "rowlock", "rules": [_rule(alert, factor) for alert in ALERTS]}
    return yaml.dump({"groups": [group]}, Dumper=_Blocks, sort_keys=False, width=1_000)


class _Blocks(yaml.SafeDumper):
    """Writes text of several lines as a block."""


def _block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Blocks.add_representer(str, _block)


def _rule(alert: Alert, factor: int) -> dict[str, Any]:
    expression = RANGE.sub(
        lambda window: LENGTH.sub(lambda length: _shortened(length[0], factor), window[0]), alert.expression
    )
    return {
        "alert": alert.name,
        "expr": NUMBER.sub(lambda found: f"{int(found[1]) / factor:g}", expression),
        "for": _shortened(alert.lasting, factor),
        "labels": {"severity": alert.severity},
        "annotations": {"summary": alert.summary + WHERE, "runbook_url": f"{RUNBOOKS}{alert.page}.md"},
    }


def _shortened(length: str, factor: int) -> str:
    found = LENGTH.fullmatch(length)
    assert found, length
    if factor == 1:
        return length
    return f"{int(found[1]) * SECONDS_OF[found[2]] * 1000 // factor}ms"
