"""`python -m load.bench`: holds a second beside this machine's limits (N, B, P1) and the obvious version (REF).

Rounds are interleaved: each measures everything once, in an order that rotates, on fresh copies of one database. Only
ratios of one run count. `make bench` runs it; ROUNDS and SECONDS shorten it, SCENARIO chooses another load.
"""

import argparse
import asyncio
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from dev import postgres
from dev.postgres import Postgres
from dev.processes import ServerError
from load.bench import latencies, limits, ours, plot, results, scenarios
from load.bench.ground import Ground, prepare
from load.bench.measured import Measured, Timing
from load.bench.ours import Setup
from load.bench.results import Round
from load.servers import OPTIONS

RESULTS = Path(__file__).parents[1] / "results" / "bench.json"
WARM_UP_SECONDS = 2
UNIFORM = "uniform"

Contender = Callable[[Ground, Timing], Awaitable[Measured]]

OTHERS = (ours.payments, ours.releases, ours.maps, ours.large_maps, ours.unchanged_maps, ours.hot_seat)
"""Besides holds."""


def contenders() -> list[Contender]:
    """All that a round measures."""
    found: list[Contender] = [limits.nothing, limits.lists, limits.one_call, limits.reference]
    for all_on in (False, True):
        found += [
            partial(ours.holds, setup=Setup(processes, connections, all_on))
            for processes, connections in ((1, 1), (1, 16), (1, 64), (1, 128), (2, 128))
        ]
        setup = Setup(all_on=all_on)
        found += [partial(measure, setup=setup) for measure in OTHERS]
    return found


async def measure_rounds(ground: Ground, count: int, timing: Timing) -> list[Round]:
    """All rounds. Prints each result when it is there."""
    rounds, everything = [], contenders()
    for number in range(count):
        rounds.append(Round())
        start = number * len(everything) // count
        for contender in everything[start:] + everything[:start]:
            measured = await contender(ground, timing)
            rounds[-1].measured.append(measured)
            say(f"round {number + 1}: {measured.name}: {measured.per_second:.0f}/s")
    results.judge(rounds)
    return rounds


async def uniform(ground: Ground, count: int, timing: Timing) -> dict[str, Any]:
    """The rounds, their table and their ratios."""
    rounds = await measure_rounds(ground, count, timing)
    found = results.document(rounds, ground.postgres.folder.name, timing.seconds)
    say(*results.table(found["medians"]), "", *results.ratio_lines(found["ratios"]))
    for number, one in enumerate(rounds, 1):
        say(*(f"round {number} is void: {reason}" for reason in one.void))
    return found


async def run(server: Postgres, folder: Path, scenario: str, rounds: int, seconds: float) -> dict[str, Any]:
    """The content of bench.json, or its part for a scenario. SIGTERM cancels it, so that no process is left behind."""
    running = asyncio.current_task()
    assert running
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    timing = Timing(WARM_UP_SECONDS, seconds)
    ground = await prepare(server, folder, WARM_UP_SECONDS + seconds)
    if scenario == UNIFORM:
        return await uniform(ground, rounds, timing)
    found = await scenarios.BY_NAME[scenario](ground, timing)
    say(*(f"{name:<52}{value:>10.2f}" for name, value in found.items()))
    if is_void := latencies.is_void(found):
        say("void: the generator itself was late")
    return {"scenarios": {scenario: {**found, "void": is_void}}}


@contextmanager
def started() -> Iterator[tuple[Postgres, Path]]:
    """PostgreSQL as in production, and the folder below TMPDIR with all files of this run."""
    folder = Path(tempfile.mkdtemp(prefix="rowlock-bench-"))
    try:
        # PostgreSQL runs under another account, which must be able to reach its files.
        folder.chmod(0o755)
        with postgres.running(postgres.prepare(folder / "postgresql", postgres.wheel_binaries(), OPTIONS)) as server:
            yield server, folder
    finally:
        shutil.rmtree(folder)


def say(*lines: str) -> None:
    """Prints lines at once."""
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


def main() -> None:
    """Exits with 1 where a measurement failed or broke a rule."""
    parser = argparse.ArgumentParser(prog="python -m load.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6, help="of each measurement")
    parser.add_argument("--scenario", choices=[UNIFORM, *scenarios.BY_NAME], default=UNIFORM)
    given = parser.parse_args()
    try:
        with started() as (server, folder):
            found = uvloop.run(run(server, folder, given.scenario, given.rounds, given.seconds))
    except ServerError as error:
        sys.exit(f"rowlock: {error}")
    except asyncio.CancelledError:
        sys.exit("rowlock: stopped")
    write(found)


def write(found: dict[str, Any]) -> None:
    """Writes bench.json, and bench.svg beside it. A scenario replaces only its own part."""
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    kept = before.get("scenarios", {}) | found.get("scenarios", {})
    RESULTS.write_text(json.dumps({**before, **found, "scenarios": kept}, indent=1) + "\n")
    if found.get("ratios"):
        RESULTS.with_suffix(".svg").write_text(plot.svg(found))
    say(f"written to {RESULTS.relative_to(RESULTS.parents[2])}")


if __name__ == "__main__":
    main()
