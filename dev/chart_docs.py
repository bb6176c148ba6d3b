"""`python -m dev.chart_docs`: writes the settings' bounds into chart/values.schema.json; `--check` compares only."""

import json
import sys
from pathlib import Path
from typing import Any

from service.settings import PREFIX, Settings

CHART = Path(__file__).parent.parent / "chart"
SCHEMA = CHART / "values.schema.json"
SET_BY_VALUES = {
    "broker_url",
    "database_url",
    "expirer_metrics_port",
    "expirer_port",
    "metrics_port",
    "pool_size",
    "port",
    "redis_url",
    "shutdown_seconds",
    "token_secret",
    "trusted_proxies",
}
"""Settings with values of their own, and those that the chart's objects rely on: `config` does not accept them."""
KEPT = ("type", "anyOf", "minimum", "maximum", "minLength", "pattern", "description")
DEFINITIONS_OF_SETTINGS = {"poolSize": "pool_size", "shutdownSeconds": "shutdown_seconds"}


def schema() -> dict[str, Any]:
    """The chart's schema, with the bounds from the model of the settings."""
    written: dict[str, Any] = json.loads(SCHEMA.read_text())
    fields = Settings.model_json_schema()["properties"]
    known = {name: {key: field[key] for key in KEPT if key in field} for name, field in fields.items()}
    written["definitions"]["config"] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {f"{PREFIX}{name.upper()}": known[name] for name in known if name not in SET_BY_VALUES},
    }
    written["definitions"] |= {name: known[setting] for name, setting in DEFINITIONS_OF_SETTINGS.items()}
    return written


def main() -> None:
    """Writes the schema; with `--check` exits with 1 where it would change."""
    made = json.dumps(schema(), indent=2) + "\n"
    if sys.argv[1:] != ["--check"]:
        SCHEMA.write_text(made)
    elif SCHEMA.read_text() != made:
        sys.exit("chart/values.schema.json does not match the settings: run make docs")


if __name__ == "__main__":
    main()
