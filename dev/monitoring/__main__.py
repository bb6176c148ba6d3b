"""`python -m dev.monitoring`: writes the chart's alerts and dashboards; `--check` only compares them."""

import sys
from pathlib import Path

from dev.monitoring.expiry import EXPIRY
from dev.monitoring.locks import LOCKS
from dev.monitoring.panels import to_json
from dev.monitoring.rules import rules
from dev.monitoring.sale import SALE
from dev.monitoring.service import SERVICE

FILES = Path(__file__).parents[2] / "chart" / "files"
DASHBOARDS = (SALE, LOCKS, EXPIRY, SERVICE)


def main() -> None:
    """Writes all files; with `--check` exits with 1 if one would change."""
    made = {f"dashboards/{described.uid}.json": to_json(described) for described in DASHBOARDS}
    made["alerts.yaml"] = rules()
    found = {str(path.relative_to(FILES)) for path in FILES.rglob("*") if path.is_file()}
    if sys.argv[1:] == ["--check"]:
        if found != set(made) or any((FILES / name).read_text() != text for name, text in made.items()):
            sys.exit("chart/files differs from dev/monitoring: run make docs")
        return
    (FILES / "dashboards").mkdir(parents=True, exist_ok=True)
    for name in found - set(made):
        (FILES / name).unlink()
    for name, text in made.items():
        (FILES / name).write_text(text)


if __name__ == "__main__":
    main()
