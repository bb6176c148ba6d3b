"""`python -m load.campaign.mutants`: breaks one line of the product after the other, and runs a campaign on each.

Each must be found; the table says by which rule and after how many seconds of campaign. The copies are made below
TMPDIR; the checkout is not touched.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("service", "expirer", "dev", "load", "tests", "pyproject.toml")


@dataclass(frozen=True, slots=True)
class Mutant:
    """A defect: `old` in `file` becomes `new`; `faults` is what brings it out."""

    name: str
    file: str
    old: str
    new: str
    faults: str = "none"


HOLDING, SETTLING = "service/ledger/holding.py", "service/ledger/settling.py"
MUTANTS = (
    Mutant("the customers are not locked", HOLDING, 'order by id\nfor no key update\n"""', 'order by id\n"""', "none"),
)


def main() -> None:
    """Exits with 1 where a mutant survives."""
    parser = argparse.ArgumentParser(prog="python -m load.campaign.mutants", description=__doc__)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("names", nargs="*", help="parts of the mutants' names; all without")
    given = parser.parse_args()
    survivors = 0
    for mutant in MUTANTS:
        if given.names and not any(name in mutant.name for name in given.names):
            continue
        began = time.monotonic()
        rules = sorted(_rules_that_find(mutant, given.seconds))
        survivors += not rules
        found = ", ".join(rules) or "SURVIVES"
        sys.stdout.write(f"| {mutant.name} | {found} | {time.monotonic() - began:.0f} s |\n")
        sys.stdout.flush()
    sys.exit(bool(survivors))


def _rules_that_find(mutant: Mutant, seconds: float) -> set[str]:
    """The rules that a campaign on the mutant breaks."""
    with tempfile.TemporaryDirectory(prefix="rowlock-mutant-") as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
        path = copy / mutant.file
        text = path.read_text()
        if mutant.old not in text:
            raise SystemExit(f"{mutant.name}: {mutant.file} does not have the line any more")
        path.write_text(text.replace(mutant.old, mutant.new))
        summary = copy / "summary.json"
        command = [sys.executable, "-m", "load.campaign", "--seconds", str(seconds), "--faults", mutant.faults]
        subprocess.run([*command, "--json", str(summary)], cwd=copy, check=False, capture_output=True)  # noqa: S603
        if not summary.exists():
            return {"the campaign could not end"}
        return {violation["rule"] for violation in json.loads(summary.read_bytes())["violations"]}


if __name__ == "__main__":
    main()
