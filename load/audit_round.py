"""`python -m load.audit_round`: how long a round of the self-audit takes, over a million seats, 105,000 reservations, a
log of 170,000 events and 20 seat maps of 50,000 seats; the number of its slices, and the longest one.
"""

import asyncio
import time

import asyncpg

from load.servers import measured
from service.audit.rounds import Round
from service.audit.slices import DEFAULT
from service.database import create_engine
from service.migrate import migrate
from tests.stage import big_data
from tests.stage.factories import OnSale, make_settings
from tests.stage.seat_maps import Projection, projecting

# The data is made for plans of statements. Here all of it must agree.
AGREE = """
set session_replication_role = replica;
delete from reservations where session_id <= 10000;
update reservations set expires_at = now() + interval '1 hour' where state = 'HELD';
update seats set version = case state when 'HELD' then 2 else 3 end where reservation_id is not null;
update events set number = events.id, seats = (
    select coalesce(jsonb_agg(jsonb_build_object('seatId', id, 'state', state, 'version', version)), '[]')
    from seats
    where reservation_id = events.reservation_id
    and (kind = 'reservation.held') = (state = 'HELD')
    and id = any((select seat_ids from reservations where id = events.reservation_id)::bigint[])
);
insert into cursors (name, number) select 'log', max(number) from events;
reset session_replication_role;
vacuum analyze
"""


async def main() -> None:
    """Prints a line for each pass: its slices, the rows that it checked, its time without pauses, the longest slice."""
    with measured() as servers:
        settings = make_settings(servers.postgres.url(), redis_url=servers.redis.url, map_fresh_ms=60_000)
        await migrate(servers.postgres.url())
        sql = await asyncpg.connect(servers.postgres.url())
        await big_data.fill(sql)
        for statement in AGREE.split(";\n"):
            await sql.execute(statement)
        engine = create_engine(settings, "rowlock-load")
        async with projecting(settings) as projection:
            projector = asyncio.create_task(keep_fresh(projection))
            for session_id in range(10_001, 10_021):
                while (await projection.get(OnSale(session_id, []))).source != "redis":
                    await asyncio.sleep(0.1)
            round_ = Round.create(engine, projection.seat_cache, settings.log_keep_hours, DEFAULT)
            await measure(round_)
            projector.cancel()
        await engine.dispose()
        await sql.close()


async def keep_fresh(projection: Projection) -> None:
    """Steps the projector until it is cancelled."""
    while True:
        await asyncio.sleep(await projection.projector.step())


async def measure(round_: Round) -> None:
    """Does the round."""
    lines: dict[str, list[float]] = {}
    is_over = False
    while not is_over:
        what, began = round_.passes[0].what, time.perf_counter()
        is_over = await round_.advance()
        lines.setdefault(what, []).append(1_000 * (time.perf_counter() - began))
    tally = round_.tally()
    for what, ms in lines.items():
        print(  # noqa: T201
            f"{what:13} {len(ms):5} slices {tally.checked[what]:8} rows {sum(ms):8.0f} ms, longest {max(ms):5.0f} ms"
        )
    print(f"violations: {dict(tally.violations)}, unlooked: {dict(tally.unlooked)}")  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main())
