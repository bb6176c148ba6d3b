"""`python -m dev.metrics_table`: writes `docs/metrics.md` from the catalogue; `--check` compares."""

import sys
from pathlib import Path
from typing import Any

from service.observability.metrics.catalogue import GROUPS
from service.observability.metrics.families import Family, Group

PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"
HEAD = """# Metrics

For operators: every metric of the API and the expirer.

Prometheus reads `GET /metrics` on a port of its own: `ROWLOCK_METRICS_PORT` for the API, `ROWLOCK_EXPIRER_METRICS_PORT`
for the expirer. Labels have a bounded number of values: none contains an id or an address. The Python client's
`process_*` and `python_*` metrics are included, except with several workers.

A gauge is NaN if its value is unknown. This is so if its store is unavailable, or if the observer or the audit has not
read it for 30 seconds. The lag of a reader is NaN if the reader has no cursor, because RabbitMQ or Redis was never
switched on or the cursor was dropped. `python -m expirer cursors list` shows the cursor of the relay as `broker` and
that of the projector as `cache`.

`make docs` generates this page from `service/observability/metrics/catalogue.py`.
"""


def page() -> str:
    """A section with a table for each group."""
    return HEAD + "".join(map(_section, GROUPS))


def _section(group: Group) -> str:
    shown = "the API and the expirer" if group.process == "both" else f"the {group.process}"
    lines = ["| metric | type | unit | meaning | labels |", "|---|---|---|---|---|", *map(_line, group.families)]
    return f"\n## {group.title}\n\nReported by {shown}.\n\n" + "\n".join(lines) + "\n"


def _line(family: Family[Any]) -> str:
    kind = family.make.__name__.lower()
    labels = "; ".join(
        f"`{name}`: {values if isinstance(values, str) else ', '.join(values)}"
        for name, values in family.labels.items()
    )
    return f"| `{family.name}` | {kind} | {family.unit} | {family.help} | {labels} |"


def main() -> None:
    """Writes the page; with `--check` exits with 1 where the page differs."""
    if sys.argv[1:] != ["--check"]:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page())
    elif not PAGE.is_file() or PAGE.read_text() != page():
        sys.exit("docs/metrics.md differs from the catalogue: run make docs")


if __name__ == "__main__":
    main()
