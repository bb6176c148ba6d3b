"""`python -m dev.metrics_table`: writes `docs/metrics.md`, from the catalogue; `--check` only looks."""

import sys
from pathlib import Path
from typing import Any

from service.observability.metrics.catalogue import GROUPS
from service.observability.metrics.families import Family, Group

PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"
HEAD = """# Metrics

`GET /metrics` on a port of its own: `ROWLOCK_METRICS_PORT` of the API, `ROWLOCK_EXPIRER_METRICS_PORT` of the expirer.
The names are given in `service/observability/metrics/catalogue.py`, and this page is made of it by `make docs`.
No label has an id, an address or anything else of which there may be any number. A gauge is NaN where nobody knows:
what is asked of a store that is away, what observer or audit could not look at for 30 seconds, or the lag of a reader
that has no cursor: RabbitMQ or Redis was never switched on, or its cursor was dropped. The loops `relay` and
`projector` move the cursors that `python -m expirer cursors list` calls `broker` and `cache`. The Python client's own
`process_*` and `python_*` are there too, where one process answers.
"""


def page() -> str:
    """A section for each group, with a table."""
    return HEAD + "".join(map(_section, GROUPS))


def _section(group: Group) -> str:
    shown = "the API and the expirer" if group.process == "both" else f"the {group.process}"
    lines = ["| metric | type | unit | meaning | labels |", "|---|---|---|---|---|", *map(_line, group.families)]
    return f"\n## {group.title}\n\nShown by {shown}.\n\n" + "\n".join(lines) + "\n"


def _line(family: Family[Any]) -> str:
    kind = family.make.__name__.lower()
    labels = "; ".join(
        f"`{name}`: {values if isinstance(values, str) else ', '.join(values)}"
        for name, values in family.labels.items()
    )
    return f"| `{family.name}` | {kind} | {family.unit} | {family.help} | {labels} |"


def main() -> None:
    """Writes the page; with `--check` exits with 1 where it would be another one."""
    if sys.argv[1:] != ["--check"]:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page())
    elif not PAGE.is_file() or PAGE.read_text() != page():
        sys.exit("docs/metrics.md is not the catalogue's: run make docs")


if __name__ == "__main__":
    main()
