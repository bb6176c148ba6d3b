"""`python -m tests.monitoring.pictures`: draws "Locks and batches" of an idle system and of a storm into docs/."""

import asyncio
import re
import time
from collections.abc import Mapping
from pathlib import Path

import asyncpg

from dev.monitoring.locks import LOCKS
from dev.monitoring.panels import Panel
from dev.monitoring.picture import Curve, Drawn, highest, picture
from tests.conftest import EMPTY_TABLES
from tests.monitoring.prometheus import Prometheus, as_asked
from tests.monitoring.system import CUSTOMERS, watched
from tests.stage.servers import NEWEST, Servers

DOCS = Path(__file__).parents[2] / "docs"
SECONDS = 20
SETTLE_SECONDS = 12
"""Until the rates no longer include earlier events."""
READING = "Both pictures have the same axes; behind a name is its highest value, and what stays at 0 is grey"
Curves = Mapping[str, Curve]


async def draw(servers: Servers) -> None:
    """Draws both pictures with the same axes."""
    postgres, redis, rabbitmq = servers.get(NEWEST), servers.redis(), servers.rabbitmq()
    sql = await asyncpg.connect(postgres.url())
    await sql.execute(EMPTY_TABLES)
    panels = [panel for row in LOCKS.rows for panel in row.panels]
    async with watched(postgres, sql, redis, rabbitmq) as (system, _):
        await asyncio.sleep(SETTLE_SECONDS)
        idle_from = time.time()
        await asyncio.sleep(SECONDS)
        storm_from = time.time()
        await system.storm(SECONDS)
        idle = [await _curves(system.prometheus, panel, idle_from) for panel in panels]
        storm = [await _curves(system.prometheus, panel, storm_from) for panel in panels]
    await sql.close()
    tops = [max(highest(quiet), highest(loud)) for quiet, loud in zip(idle, storm, strict=True)]
    crowd = f"a storm: {CUSTOMERS} customers want the same 16 seats"
    for name, subtitle, curves, begin in (
        ("idle", "an idle system", idle, idle_from),
        ("storm", crowd, storm, storm_from),
    ):
        drawn = list(map(Drawn, panels, curves, tops))
        (DOCS / f"locks-{name}.svg").write_text(
            picture(LOCKS, f"{SECONDS} s of {subtitle}. {READING}", drawn, begin, begin + SECONDS)
        )


async def _curves(prometheus: Prometheus, panel: Panel, begin: float) -> Curves:
    found: dict[str, Curve] = {}
    for legend, expression in panel.lines.items():
        for series in await prometheus.curves(as_asked(expression, "10s"), begin, begin + SECONDS):
            found[_named(legend, series["metric"])] = [(float(at), float(value)) for at, value in series["values"]]
    return found


def _named(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda label: labels.get(label[1], ""), legend)


def main() -> None:
    """Starts its own servers and draws the pictures."""
    servers = Servers()
    try:
        # Starting a server also migrates it, in its own event loop.
        servers.get(NEWEST)
        asyncio.run(draw(servers))
    finally:
        servers.stop()


if __name__ == "__main__":
    main()
