"""Removes the queues of hints for other hold times once they are empty: a queue's time to live can't be changed."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncEngine

from expirer.thread import Thread
from service.broker.link import Link
from service.broker.topology import retire
from service.database import transaction
from service.settings import Settings

INTERVAL_SECONDS = 20

NOTE_QUEUE = """
insert into hold_queues (ttl_ms)
values ($1)
on conflict do nothing
"""

LIST_OTHERS = """
select ttl_ms
from hold_queues
where ttl_ms <> $1
order by ttl_ms
"""

FORGET_QUEUES = """
delete from hold_queues
where ttl_ms = any($1::int[])
"""


class HoldQueues:
    """PostgreSQL keeps the list of the queues, because AMQP can't list them."""

    def __init__(self, engine: AsyncEngine, settings: Settings) -> None:
        self._engine = engine
        self._ttl_ms = settings.hold_seconds * 1000
        self._link = Link(settings)
        self._thread = Thread("queues")

    async def step(self) -> float:
        """Checks each queue once; seconds to wait. Raises BrokerAway."""
        async with transaction(self._engine) as connection:
            await connection.execute(NOTE_QUEUE, self._ttl_ms)
            others = [row["ttl_ms"] for row in await connection.fetch(LIST_OTHERS, self._ttl_ms)]
        gone = await self._thread.run(self._retire, others)
        if gone:
            async with transaction(self._engine) as connection:
                await connection.execute(FORGET_QUEUES, gone)
        return INTERVAL_SECONDS

    async def close(self) -> None:
        """Ends the connection."""
        await self._thread.run(self._link.close)
        self._thread.close()

    def _retire(self, others: Sequence[int]) -> list[int]:
        if not others:
            return []
        with self._link.connected() as connection:
            gone = [ttl_ms for ttl_ms in others if retire(connection, ttl_ms)]
        # The next use is a while away: RabbitMQ would close a connection without heartbeats.
        self._link.close()
        return gone
