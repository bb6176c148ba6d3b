"""`python -m dev.chart_snapshot`: writes the default rendering, so that a change of the chart shows its diff."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
SNAPSHOT = ROOT / "tests" / "chart" / "default.yaml"
GENERATED = re.compile(r"(?m)^(  (?:token-secret|password|email): )\S+$")
"""Random values of Secrets."""


def snapshot() -> str:
    """The objects that the chart's defaults render, with generated values hidden."""
    command = ["helm", "template", "rowlock", "chart", "--namespace", "rowlock"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout  # noqa: S603 - ours
    return GENERATED.sub(r"\1(generated)", made)


if __name__ == "__main__":
    SNAPSHOT.write_text(snapshot())
