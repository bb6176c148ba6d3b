"""`python -m load.campaign.mutants`: breaks one line of the product after the other, and runs a campaign on each.

Each must be found by a rule that it names; the table says by which ones and after how many seconds of campaign. With
`--clean` a campaign without a defect comes first, and must find nothing. The copies are made below TMPDIR; the checkout
is not touched.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CLIENTS = 40
COPIED = ("service", "expirer", "dev", "load", "tests", "pyproject.toml")


@dataclass(frozen=True, slots=True)
class Mutant:
    """A defect: `old` in `file` becomes `new`. `faults` brings it out, and one of `rules` must find it."""

    name: str
    rules: Sequence[str]
    file: str
    old: str
    new: str
    faults: str = "none"


HOLDING, SETTLING, BOOKING = "service/ledger/holding.py", "service/ledger/settling.py", "service/ledger/booking.py"
CLAIMS, RELAY = "service/ledger/claims.py", "expirer/loops/relay.py"
MUTANTS = (
    Mutant(
        "a hold does not lock its customer",
        ("limit",),
        HOLDING,
        "from accounts\nwhere id = any($1::uuid[])\norder by id\nfor no key update\n",
        "from accounts\nwhere id = any($1::uuid[])\norder by id\n",
    ),
    Mutant(
        "a hold does not lock its seats",
        ("defect", "owner"),
        HOLDING,
        "order by seats.id\n    for no key update of seats\n",
        "order by seats.id\n",
    ),
    Mutant(
        "a hold reads the clock before its locks",
        ("clock",),
        HOLDING,
        "select clock_timestamp()",
        "select transaction_timestamp()",
    ),
    Mutant(
        "the limit does not count paid seats",
        ("limit",),
        HOLDING,
        "and state in ('HELD', 'CONFIRMED')\n",
        "and state = 'HELD'\n",
    ),
    Mutant(
        "a key that was used for other seats is not refused",
        ("content",),
        CLAIMS,
        "if first.fingerprint != request.fingerprint():",
        "if not first.fingerprint:",
    ),
    Mutant(
        "a key is not remembered",
        ("refusal",),
        HOLDING,
        "and idempotency_key = asked.idempotency_key\n",
        "and false\n",
    ),
    Mutant(
        "a settlement does not lock its reservation",
        ("deadlock", "defect", "log"),
        SETTLING,
        "order by r.id\nfor no key update of r\n",
        "order by r.id\n",
    ),
    Mutant(
        "an overdue hold keeps its seats from other customers",
        ("refusal",),
        CLAIMS,
        "for seat_id, owner in owners.items() if owner not in self.overdue_holders)",
        "for seat_id in owners)",
        "expirer-killed,expirer-stopped",
    ),
    Mutant(
        "a taken seat counts as free",
        ("defect", "owner", "log"),
        CLAIMS,
        "for seat in seats if seat.state is not SeatState.AVAILABLE}",
        "for seat in seats if seat.state is None}",
    ),
    Mutant(
        "a customer may settle another's reservation",
        ("content", "unasked"),
        SETTLING,
        "r.customer_id = coalesce(asked.customer_id, r.customer_id)",
        "true",
    ),
    Mutant(
        "a settlement does not count the seat's version on",
        ("log",),
        SETTLING,
        "version = version + 1\n    from unnest($4",
        "version = version\n    from unnest($4",
    ),
    Mutant(
        "a payment after the deadline is accepted",
        ("late",),
        "service/reservation.py",
        "if now < reservation.expires_at:",
        "if now < reservation.expires_at or target is State.CONFIRMED:",
    ),
    Mutant(
        "a repeated payment is refused",
        ("refusal",),
        "service/reservation.py",
        "if target in (state, State.EXPIRED):",
        "if target is State.EXPIRED:",
    ),
    Mutant(
        "an unknown COMMIT is reported as not done",
        ("unasked",),
        BOOKING,
        "return await self._look_up(write, requests)",
        "raise DatabaseAway from None",
        "commit-cut,connections-cut,backends-terminated",
    ),
    Mutant(
        "the relay moves its cursor before the confirms",
        ("unpublished",),
        RELAY,
        "published = await self._publish(events)\n        await self._move_cursor(number, events[: published.events])",
        "await self._move_cursor(number, events)\n        published = await self._publish(events)",
        "rabbitmq-killed,expirer-killed,rabbitmq-alarmed",
    ),
    Mutant(
        "a list gives its answers to the wrong members",
        ("content",),
        "service/ledger/gathering.py",
        "list(zip(members, answers, strict=True))",
        "list(zip(members, reversed(answers), strict=True))",
    ),
    Mutant(
        "a member of a list does not count what an earlier one took",
        ("limit",),
        CLAIMS,
        "Claim(reservation.id, len(seats), is_overdue=False)",
        "Claim(reservation.id, 0, is_overdue=False)",
    ),
)


def main() -> None:
    """Exits with 1 where a mutant survives, or where the product without one violates a rule."""
    parser = argparse.ArgumentParser(prog="python -m load.campaign.mutants", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--clean", action="store_true", help="begins with a campaign on the product as it is")
    parser.add_argument("--json", type=Path, help="where the table for docs/reliability is written")
    parser.add_argument("names", nargs="*", help="parts of the mutants' names; all without")
    given = parser.parse_args()
    is_clean = not given.clean or not _tried(None, given.seconds)["rules"]
    chosen = [m for m in MUTANTS if not given.names or any(name in m.name for name in given.names)]
    rows = [_tried(mutant, given.seconds) for mutant in chosen]
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")
    sys.exit(not is_clean or not all(is_found(m, row["rules"]) for m, row in zip(chosen, rows, strict=True)))


def _tried(mutant: Mutant | None, seconds: float) -> dict[str, Any]:
    """A row of the table, which is printed as well."""
    began = time.monotonic()
    rules = _violated(mutant, seconds)
    took = round(time.monotonic() - began)
    row = {"name": mutant.name if mutant else "no defect", "file": mutant.file if mutant else "", "rules": rules}
    found = ", ".join(f"{rule} {count}" for rule, count in rules.items()) or "nothing"
    verdict = " SURVIVES" if mutant and not is_found(mutant, rules) else ""
    print(f"| {row['name']} | {found}{verdict} | {took} s |", flush=True)  # noqa: T201
    return row | {"seconds": took}


def is_found(mutant: Mutant, violated: Collection[str]) -> bool:
    """Whether one of the rules that are meant for it is among the violated ones."""
    return not set(mutant.rules).isdisjoint(violated)


def _violated(mutant: Mutant | None, seconds: float) -> dict[str, int]:
    """The rules that a campaign on the copy breaks, and how often. Raises RuntimeError where it could not end."""
    with tempfile.TemporaryDirectory(prefix="rowlock-mutant-") as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
        if mutant:
            path = copy / mutant.file
            path.write_text(mutated(mutant, path.read_text()))
        summary = copy / "summary.json"
        command = [sys.executable, "-m", "load.campaign", "--seconds", str(seconds), "--clients", str(CLIENTS)]
        command += ["--faults", mutant.faults if mutant else "none", "--json", str(summary)]
        ended = subprocess.run(command, cwd=copy, check=False, capture_output=True, text=True)  # noqa: S603
        if not summary.exists():
            raise RuntimeError(f"{mutant or 'no defect'}: the campaign could not end: {ended.stderr[-2_000:]}")
        found: dict[str, int] = json.loads(summary.read_bytes())["violations_by_rule"]
        return found


def mutated(mutant: Mutant, text: str) -> str:
    """The text with the defect. Raises ValueError where it does not have the line any more."""
    if mutant.old not in text:
        raise ValueError(f"{mutant.name}: {mutant.file} does not have the line any more")
    return text.replace(mutant.old, mutant.new)


if __name__ == "__main__":
    main()
