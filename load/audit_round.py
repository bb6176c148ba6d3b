"""`python -m load.audit_round`: number and times of the slices of a round of the self-audit, over a million seats,
105,000 reservations with their log, and 20 seat maps of 50,000 seats.
"""

import asyncio
import sys
import time
from collections import defaultdict

import asyncpg

from expirer.supervisor import Supervisor
from load.servers import measured
from service.audit.rounds import Round
from service.audit.slices import DEFAULT
from service.database import create_engine
from service.migrate import migrate
from tests.stage import big_data
from tests.stage.factories import OnSale, make_settings
from tests.stage.seat_maps import projecting

# The data is made for the plans of statements: it does not all agree.
LET_IT_AGREE = """
set session_replication_role = replica;
delete from reservations where session_id <= 10000;
update reservations set expires_at = now() + interval '1 hour' where state = 'HELD';
update seats set version = case state when 'HELD' then 2 else 3 end where reservation_id is not null;
update events set number = events.id, seats = coalesce((
    select jsonb_agg(jsonb_build_object('seatId', seats.id, 'state', seats.state, 'version', version))
    from reservations as r
    join seats on seats.id = any(r.seat_ids) and seats.reservation_id = r.id
    where r.id = events.reservation_id and kind = 'reservation.' || lower(r.state)
), '[]');
insert into cursors (name, number) select 'log', max(number) from events;
reset session_replication_role
"""


async def main() -> None:
    """Prints a line for each pass. Between two slices the expirer makes a pause of 50 ms."""
    with measured() as servers:
        settings = make_settings(servers.postgres.url(), redis_url=servers.redis.url, map_fresh_ms=60_000)
        await migrate(servers.postgres.url())
        sql = await asyncpg.connect(servers.postgres.url())
        await big_data.fill(sql)
        await sql.execute(LET_IT_AGREE)
        await sql.execute("vacuum analyze")
        await sql.close()
        engine = create_engine(settings, "rowlock-load")
        async with projecting(settings) as projection:
            supervisor = Supervisor({"projector": projection.projector.step})
            projecting_maps = asyncio.create_task(supervisor.run())
            for session_id in range(10_001, 10_021):
                await projection.get(OnSale(session_id, []))
            round_ = Round.create(engine, projection.seat_cache, settings.log_keep_hours, DEFAULT)
            took = defaultdict[str, list[float]](list)
            while round_.passes:
                what, began = round_.passes[0].what, time.perf_counter()
                await round_.advance()
                took[what].append(1_000 * (time.perf_counter() - began))
            supervisor.stop()
            await projecting_maps
        await engine.dispose()
    for what, ms in took.items():
        rows = f"{len(ms):5} slices, {round_.checked[what]:8} rows"
        sys.stdout.write(f"{what:13} {rows} {sum(ms):8.0f} ms, longest {max(ms):5.0f} ms\n")
    sys.stdout.write(f"{round_.tally()}\n")


if __name__ == "__main__":
    asyncio.run(main())
