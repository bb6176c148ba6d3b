"""The report of a campaign as text."""

from collections import Counter
from dataclasses import asdict

import orjson

from load.campaign.campaign import Options, Result
from load.campaign.history import History, Operation
from load.campaign.timeline import Violation

SHOWN_MAX, EXAMPLES_MAX = 10, 3


def table(options: Options, result: Result) -> str:
    """The verdict, the counts, and the first violations with the operations that show them."""
    history = result.history
    outcomes = Counter((op.kind, op.problem or str(op.status)) for op in history.operations)
    faults = Counter(fault.kind for fault in history.faults if fault.kind != "heal")
    lines = [f"seed {options.seed}: {len(history.operations)} operations, {sum(faults.values())} faults"]
    lines += [f"  {kind:10} {outcome:24} {count:8}" for (kind, outcome), count in sorted(outcomes.items())]
    lines += [f"  {kind:35} {count:8}" for kind, count in sorted(faults.items())]
    lines += [f"  skipped {kind}: {why}" for kind, why in result.skipped[:SHOWN_MAX]]
    lines.append(
        f"checked {len(history.events)} events and {len(history.reservations)} reservations"
        f" in {result.check_seconds:.1f} s"
    )
    rules = Counter(violation.rule for violation in result.violations)
    for rule in rules:
        for violation in [found for found in result.violations if found.rule == rule][:EXAMPLES_MAX]:
            lines += shown(history, violation)
    lines.append(
        f"VIOLATED: {', '.join(f'{rule} {n}' for rule, n in rules.most_common())}" if rules else "no violation"
    )
    return "\n".join(lines) + "\n"


def shown(history: History, violation: Violation) -> list[str]:
    """The violation with the operations and events that it names."""
    operations = {operation.id: operation for operation in history.operations}
    events = {event.id: event for event in history.events}
    lines = [f"* {violation.rule}: {violation.text}"]
    lines += [f"    {_operation(operations[id_])}" for id_ in violation.operations if id_ in operations]
    lines += [f"    {orjson.dumps(asdict(events[id_])).decode()}" for id_ in violation.events if id_ in events]
    near = violation.operations and operations.get(violation.operations[0])
    if near:
        lines += [
            f"    during {fault.kind}"
            for fault in history.faults
            if fault.began <= near.ended and near.invoked <= fault.ended
        ]
    return lines


def _operation(operation: Operation) -> str:
    facts = {name: value for name, value in asdict(operation).items() if value not in (None, (), 0, False)}
    return orjson.dumps(facts).decode()


def shortest(violation: Violation, part: History) -> str:
    """The shortest part of the history that shows the violation, in the order of time."""
    rows: list[tuple[float, str]] = [(op.invoked, _operation(op)) for op in part.operations]
    rows += [(event.at, orjson.dumps(asdict(event)).decode()) for event in part.events]
    lines = [f"the shortest part of the history that shows this: {violation.rule}: {violation.text}"]
    return "\n".join([*lines, *(f"    {text}" for _, text in sorted(rows))]) + "\n"
