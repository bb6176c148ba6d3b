"""The loops that this process runs, by its settings: those of Redis and RabbitMQ only where these are configured."""

import os
import secrets
import socket
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
from service.settings import Settings

READERS = ("relay", "projector")
"""The loops that have work once events are numbered."""

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

    @classmethod
    def create(cls, engine: AsyncEngine, settings: Settings) -> Self:
        """Starts no loop and opens no connection yet."""
        owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        cache = Cache(settings) if settings.redis_url else None
        optional: dict[str, Loop] = {"observer": Observer(engine, settings)}
        if settings.broker_url:
            optional["relay"] = Relay(engine, settings, owner)
            optional["inbox"] = Inbox(engine, settings)
            optional["queues"] = HoldQueues(engine, settings)
        optional["audit"] = Audit(engine, settings, owner, cache)
        if cache:
            optional["projector"] = Projector(engine, cache, settings, owner)
        supervisor = Supervisor({name: loop.step for name, loop in optional.items()})
        supervisor.steps |= {
            "sweep": partial(sweep.step, engine, settings, sweep.SetAside()),
            "sequencer": partial(sequencer.step, engine, settings, lambda: supervisor.wake(*READERS)),
            "keeper": partial(keeper.step, engine, settings),
        }
        return cls(supervisor, list(optional.values()), cache)

    async def close(self) -> None:
        """Closes the connections and releases the leases, so that another replica continues at once."""
        for loop in self.open:
            try:
                await loop.close()
            except Unavailable as error:
                log.warning("not closed properly; its lease expires soon", error=repr(error))
        if self.cache:
            await self.cache.close()
