"""`python -m load.campaign`: random operations under random faults, and the verdict. `make campaign` runs it."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from load.campaign import campaign, faults, report
from load.campaign.campaign import Options
from load.campaign.disk import keep_mounts_private


def main() -> None:
    """Exits with 1 where something was violated."""
    parser = argparse.ArgumentParser(prog="python -m load.campaign", description=__doc__)
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=faults.kinds, default=faults.kinds("all"), help="all, none, fast, or names")
    parser.add_argument("--every", type=float, default=3.0, help="seconds between two faults, on average")
    parser.add_argument("--postgresql", type=int, help="an older major version of Debian's")
    parser.add_argument("--asynchronous", action="store_true", help="commits do not wait for the standby")
    parser.add_argument("--history", type=Path, help="where the history is written")
    parser.add_argument("--json", type=Path, help="where the summary is written")
    given = parser.parse_args()
    options = Options(
        given.seconds, given.seed, given.faults, given.every, given.postgresql, synchronous=not given.asynchronous
    )
    keep_mounts_private()
    with tempfile.TemporaryDirectory(prefix="rowlock-history-") as folder:
        result = asyncio.run(campaign.run(options, given.history or Path(folder) / "history.jsonl"))
    sys.stdout.write(report.table(options, result))
    if given.json:
        given.json.write_bytes(report.summary(options, result))
    sys.exit(bool(result.violations))


if __name__ == "__main__":
    main()
