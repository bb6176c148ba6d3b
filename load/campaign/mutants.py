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


HOLDING, SETTLING, BOOKING = "service/ledger/holding.py", "service/ledger/settling.py", "service/ledger/booking.py"
EXPIRING, CLAIMS, RELAY = "service/ledger/expiring.py", "service/ledger/claims.py", "expirer/loops/relay.py"
MUTANTS = (
    Mutant(
        "a hold does not lock its customer",
        HOLDING,
        "from accounts\nwhere id = any($1::uuid[])\norder by id\nfor no key update\n",
        "from accounts\nwhere id = any($1::uuid[])\norder by id\n",
    ),
    Mutant(
        "a hold does not lock its seats",
        HOLDING,
        "order by seats.id\nfor no key update of seats\n",
        "order by seats.id\n",
    ),
    Mutant("a hold locks its seats in the wrong order", HOLDING, "order by seats.id\n", "order by seats.id desc\n"),
    Mutant(
        "a hold reads the clock before its locks", HOLDING, "select clock_timestamp()", "select transaction_timestamp()"
    ),
    Mutant(
        "the limit does not count paid seats",
        HOLDING,
        "where r.state in ('HELD', 'CONFIRMED')\nunion all",
        "where r.state = 'HELD'\nunion all",
    ),
    Mutant(
        "a key that was used for other seats is not refused",
        CLAIMS,
        "if first.fingerprint != request.fingerprint():",
        "if not first.fingerprint:",
    ),
    Mutant(
        "a settlement does not lock its reservation",
        SETTLING,
        "order by r.id\nfor no key update of r\n",
        "order by r.id\n",
    ),
    Mutant(
        "a settlement reads the clock before its locks",
        SETTLING,
        "(select clock_timestamp()) as now",
        "(select transaction_timestamp()) as now",
        "rows-locked",
    ),
    Mutant(
        "a customer may settle another's reservation",
        SETTLING,
        "r.customer_id = coalesce(asked.customer_id, r.customer_id)",
        "true",
    ),
    Mutant(
        "a settlement does not count the seat's version on",
        SETTLING,
        "version = version + 1\n    from unnest($4",
        "version = version\n    from unnest($4",
    ),
    Mutant(
        "a payment after the deadline is accepted",
        "service/reservation.py",
        "if now < reservation.expires_at:",
        "if now < reservation.expires_at or target is State.CONFIRMED:",
    ),
    Mutant(
        "the sweep waits for locked holds",
        EXPIRING,
        "for no key update skip locked",
        "for no key update",
        "rows-locked",
    ),
    Mutant(
        "an unknown COMMIT is reported as not done",
        BOOKING,
        'recording.retried("outcome_unknown")\n            return await self._look_up(write, requests)',
        "raise DatabaseAway from None",
        "commit-cut,connections-cut,backends-terminated",
    ),
    Mutant(
        "the relay moves its cursor before the confirms",
        RELAY,
        "published = await self._publish(events)\n        await self._move_cursor(number, events[: published.events])",
        "await self._move_cursor(number, events)\n        published = await self._publish(events)",
        "rabbitmq-killed,expirer-killed,rabbitmq-alarmed",
    ),
    Mutant(
        "a map accepts changes that are older than its own",
        "service/seatmap/lua/apply.lua",
        "version > struct.unpack('>I4', known)",
        "true",
        "expirer-killed,expirer-stopped",
    ),
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
