"""The loops that this process runs, by its settings: those of Redis and RabbitMQ only where these are configured."""

import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, Self

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from expirer.loops import keeper, sequencer, sweep
from expirer.loops.audit import Audit
from expirer.loops.inbox import Inbox
from expirer.loops.observer import Observer
from expirer.loops.projector import Projector
from expirer.loops.queues import HoldQueues
from expirer.loops.relay import Relay
from expirer.supervisor import Supervisor
from service.cache import Cache
from service.errors import Unavailable
from service.events.wakeups import Bell, Listener, News
from service.settings import Settings

READERS = ("relay", "projector")
"""The loops that have work once events are numbered."""
SPACED = ("sequencer", *READERS)
"""The loops whose steps handle many events at once, if they do not come too often."""

log = structlog.stdlib.get_logger("rowlock.expirer")


class Loop(Protocol):
    """A loop that keeps something open between its steps."""

    async def step(self) -> float:
        """Does one bounded batch; seconds to wait."""

    async def close(self) -> None:
        """Closes its connections and releases its lease."""


@dataclass(frozen=True, slots=True)
class Loops:
    """`supervisor` runs them; `close` after it has returned."""

    supervisor: Supervisor
    open: list[Loop]
    cache: Cache | None
    bell: Bell

    @classmethod
    def create(cls, engine: AsyncEngine, settings: Settings) -> Self:
        """Starts no loop and opens no connection yet."""
        owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        cache = Cache(settings) if settings.redis_url else None
        supervisor = Supervisor({}, spacing=dict.fromkeys(SPACED, settings.events_linger_ms / 1000))
        bell = Bell(settings, "rowlock-wakeups", owner)

        def number() -> None:
            supervisor.wake("sequencer")

        def read() -> None:
            supervisor.wake(*READERS)

        def note_numbered() -> None:
            read()
            bell.ring(News.NUMBERED)

        open_loops = {
            "listener": Listener(
                settings, owner, {News.COMMITTED: number, News.NUMBERED: read}, lambda: supervisor.wake("listener")
            ),
            **_optional(engine, settings, owner, cache, number),
        }
        supervisor.steps |= {name: loop.step for name, loop in open_loops.items()} | {
            "sweep": partial(sweep.step, engine, settings, sweep.SetAside(), ended=number),
            "sequencer": partial(sequencer.step, engine, settings, note_numbered),
            "keeper": partial(keeper.step, engine, settings, keeper.Walk()),
        }
        return cls(supervisor, list(open_loops.values()), cache, bell)

    async def close(self) -> None:
        """Closes the connections and releases the leases, so that another replica continues at once."""
        for loop in self.open:
            try:
                await loop.close()
            except Unavailable as error:
                log.warning("not closed properly; its lease expires soon", error=repr(error))
        await self.bell.close()
        if self.cache:
            await self.cache.close()


def _optional(
    engine: AsyncEngine, settings: Settings, owner: str, cache: Cache | None, ended: Callable[[], None]
) -> dict[str, Loop]:
    """The loops that keep something open, of which some need a Redis or a RabbitMQ."""
    loops: dict[str, Loop] = {"observer": Observer(engine, settings), "audit": Audit(engine, settings, owner, cache)}
    if settings.broker_url:
        loops["relay"] = Relay(engine, settings, owner)
        loops["inbox"] = Inbox(engine, settings, ended=ended)
        loops["queues"] = HoldQueues(engine, settings)
    if cache:
        loops["projector"] = Projector(engine, cache, settings, owner)
    return loops
