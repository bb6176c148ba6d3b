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
CLIENTS = 40
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
CLAIMS, RELAY = "service/ledger/claims.py", "expirer/loops/relay.py"
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
    Mutant(
        "a hold reads the clock before its locks", HOLDING, "select clock_timestamp()", "select transaction_timestamp()"
    ),
    Mutant(
        "the limit does not count paid seats",
        HOLDING,
        "where r.state in ('HELD', 'CONFIRMED')\n",
        "where r.state = 'HELD'\n",
    ),
    Mutant(
        "a key that was used for other seats is not refused",
        CLAIMS,
        "if first.fingerprint != request.fingerprint():",
        "if not first.fingerprint:",
    ),
    Mutant(
        "a key is not remembered",
        HOLDING,
        "join reservations as r using (customer_id, idempotency_key)\n",
        "join reservations as r using (customer_id, idempotency_key)\nwhere false\n",
    ),
    Mutant(
        "a settlement does not lock its reservation",
        SETTLING,
        "order by r.id\nfor no key update of r\n",
        "order by r.id\n",
    ),
    Mutant(
        "an overdue hold keeps its seats from other customers",
        CLAIMS,
        "for seat_id, owner in owners.items() if owner not in self.overdue_holders)",
        "for seat_id in owners)",
        "expirer-killed,expirer-stopped",
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
        "a repeated payment is refused",
        "service/reservation.py",
        "if target in (state, State.EXPIRED):",
        "if target is State.EXPIRED:",
    ),
    Mutant(
        "an unknown COMMIT is reported as not done",
        BOOKING,
        "return await self._look_up(write, requests)",
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
        "a list gives its answers to the wrong members",
        "service/ledger/gathering.py",
        "list(zip(members, answers, strict=True))",
        "list(zip(members, reversed(answers), strict=True))",
    ),
    Mutant(
        "a member of a list does not count what an earlier one took",
        CLAIMS,
        "Claim(reservation.id, len(seats), is_overdue=False)",
        "Claim(reservation.id, 0, is_overdue=False)",
    ),
)


def main() -> None:
    """Exits with 1 where a mutant survives."""
    parser = argparse.ArgumentParser(prog="python -m load.campaign.mutants", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--json", type=Path, help="where the table for docs/reliability is written")
    parser.add_argument("names", nargs="*", help="parts of the mutants' names; all without")
    given = parser.parse_args()
    rows = []
    for mutant in MUTANTS:
        if given.names and not any(name in mutant.name for name in given.names):
            continue
        began = time.monotonic()
        rules = _rules_that_find(mutant, given.seconds)
        seconds = round(time.monotonic() - began)
        rows.append({"name": mutant.name, "file": mutant.file, "rules": rules, "seconds": seconds})
        found = ", ".join(f"{rule} {count}" for rule, count in rules.items()) or "SURVIVES"
        print(f"| {mutant.name} | {found} | {seconds} s |", flush=True)  # noqa: T201
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")
    sys.exit(not all(row["rules"] for row in rows))


def _rules_that_find(mutant: Mutant, seconds: float) -> dict[str, int]:
    """The rules that a campaign on the mutant breaks, and how often. Raises RuntimeError where it could not end."""
    with tempfile.TemporaryDirectory(prefix="rowlock-mutant-") as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
        path = copy / mutant.file
        path.write_text(mutated(mutant, path.read_text()))
        summary = copy / "summary.json"
        command = [sys.executable, "-m", "load.campaign", "--seconds", str(seconds), "--clients", str(CLIENTS)]
        command += ["--faults", mutant.faults, "--json", str(summary)]
        ended = subprocess.run(command, cwd=copy, check=False, capture_output=True, text=True)  # noqa: S603
        if not summary.exists():
            raise RuntimeError(f"{mutant.name}: the campaign could not end: {ended.stderr[-2_000:]}")
        found: dict[str, int] = json.loads(summary.read_bytes())["violations_by_rule"]
        return found


def mutated(mutant: Mutant, text: str) -> str:
    """The text with the defect. Raises ValueError where it does not have the line any more."""
    if mutant.old not in text:
        raise ValueError(f"{mutant.name}: {mutant.file} does not have the line any more")
    return text.replace(mutant.old, mutant.new)


if __name__ == "__main__":
    main()
