"""Other loads than even ones, each once: `make bench SCENARIO=hot`."""

from collections.abc import Awaitable, Callable, Mapping

from load.bench import limits, ours
from load.bench.ground import Ground
from load.bench.measured import Timing
from load.bench.ours import Setup

Scenario = Callable[[Ground, Timing], Awaitable[dict[str, float]]]


async def hot(ground: Ground, timing: Timing) -> dict[str, float]:
    """One seat that all customers want, beside a route that does nothing."""
    nothing = await limits.nothing(ground, timing)
    found = {"nothing a second": nothing.per_second}
    for all_on in (False, True):
        measured = await ours.hot_seat(ground, timing, Setup(all_on=all_on))
        name = "refusals a second" + (", all on" if all_on else "")
        found |= {name: measured.per_second, f"{name}, of N": measured.per_second / nothing.per_second}
    return found


BY_NAME: Mapping[str, Scenario] = {"hot": hot}
