"""Several expirers, of which the oldest is killed and replaced."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.stage.letters import consumers
from tests.stage.processes import Process, expirer_process
from tests.stage.waiting import until


@dataclass(slots=True)
class Crew:
    """Running expirers, the oldest first."""

    stack: AsyncExitStack
    url: str
    options: dict[str, Any]
    members: list[Process] = field(default_factory=list)

    async def hire(self) -> None:
        """Starts another one."""
        self.members.append(await self.stack.enter_async_context(expirer_process(self.url, **self.options)))

    async def replace(self) -> None:
        """Kills the oldest one and starts another."""
        self.members.pop(0).kill_now()
        await self.hire()


@asynccontextmanager
async def crew_of(count: int, database_url: str, **options: Any) -> AsyncIterator[Crew]:
    """Expirers, of which each takes dead letters."""
    async with AsyncExitStack() as stack:
        crew = Crew(stack, database_url, options)
        await asyncio.gather(*[crew.hire() for _ in range(count)])

        async def connected() -> bool:
            return consumers(options["broker_url"]) == count

        await until(connected, "the inboxes")
        yield crew
