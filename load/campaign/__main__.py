"""`python -m load.campaign`: random operations under random faults, and the verdict. `make campaign` runs it."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from load.campaign import campaign, faults, figures, report
from load.campaign import history as histories
from load.campaign.campaign import Options, Result
from load.campaign.checks import check
from load.campaign.disk import keep_mounts_private
from load.campaign.reduction import reduced


def main() -> None:
    """Exits with 1 where something was violated."""
    parser = argparse.ArgumentParser(prog="python -m load.campaign", description=__doc__)
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=faults.kinds, default=faults.kinds("all"), help="all, none, fast, or names")
    parser.add_argument("--every", type=float, default=3.0, help="seconds between two faults, on average")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--postgresql", type=int, help="an older major version of Debian's")
    parser.add_argument("--asynchronous", action="store_true", help="commits do not wait for the standby")
    parser.add_argument("--history", type=Path, help="where the history is written")
    parser.add_argument("--shortest", type=Path, help="where the part that shows the first violation is written")
    parser.add_argument("--check", type=Path, metavar="HISTORY", help="only checks a history that was written before")
    parser.add_argument("--json", type=Path, help="where the summary is written")
    given = parser.parse_args()
    if given.check:
        found = check(histories.read(given.check))
        sys.stdout.writelines(f"{violation.rule}: {violation.text}\n" for violation in found)
        sys.exit(bool(found))
    options = Options(
        seconds=given.seconds,
        seed=given.seed,
        faults=given.faults,
        every_seconds=given.every,
        clients=given.clients,
        postgresql=given.postgresql,
        synchronous=not given.asynchronous,
    )
    keep_mounts_private()
    with tempfile.TemporaryDirectory(prefix="rowlock-history-") as folder:
        result = asyncio.run(campaign.run(options, given.history or Path(folder) / "history.jsonl"))
    sys.stdout.write(report.table(options, result))
    if given.json:
        given.json.write_bytes(figures.summary(options, result))
    _show_shortest(result, given.shortest)
    sys.exit(bool(result.violations))


def _show_shortest(result: Result, path: Path | None) -> None:
    """Prints and writes the shortest part for the first violation that has one."""
    for violation in result.violations:
        if part := reduced(result.history, violation):
            sys.stdout.write(report.shortest(violation, part))
            if path:
                histories.write(path, part)
            return


if __name__ == "__main__":
    main()
