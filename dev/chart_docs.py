"""`python -m dev.chart_docs`: writes what the chart tells of its values and our settings; `--check` only looks.

The table in chart/README.md comes from the comments in chart/values.yaml, the bounds in chart/values.schema.json from
the model of the settings.
"""

import json
import sys
from pathlib import Path
from typing import Any

from dev.chart_values import values_table
from service.settings import PREFIX, Settings

CHART = Path(__file__).parent.parent / "chart"
README, SCHEMA = CHART / "README.md", CHART / "values.schema.json"
BEGIN, END = "<!-- values -->", "<!-- /values -->"
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
"""Settings that have values of their own, or that the chart's objects rely on: `config` does not take them."""
KEPT = ("type", "anyOf", "minimum", "maximum", "minLength", "pattern", "description")
DEFINITIONS_OF_SETTINGS = {"poolSize": "pool_size", "shutdownSeconds": "shutdown_seconds"}


def schema() -> dict[str, Any]:
    """The chart's schema, with what the model of the settings says."""
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
    """Writes both files; with `--check` exits with 1 where one would become something else."""
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    made = {
        README: f"{before}{BEGIN}\n{values_table((CHART / 'values.yaml').read_text())}\n{END}{after}",
        SCHEMA: json.dumps(schema(), indent=2) + "\n",
    }
    for path, text in made.items():
        if sys.argv[1:] == ["--check"]:
            if path.read_text() != text:
                sys.exit(f"chart/{path.name} is not what values.yaml and the settings say: run make docs")
        else:
            path.write_text(text)


if __name__ == "__main__":
    main()
