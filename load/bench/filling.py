"""Sessions, seats and settled reservations by the hundred thousand, made in SQL."""

import asyncpg

from load.bench.ground import SEATS_PER_SESSION, Ground
from service.database import Connection
from tests.stage.factories import Account

# The foreign keys hold by construction: to look each one up would take longer than all the rest.
WITHOUT_LOOK_UPS = """
set session_replication_role = replica
"""

ADD_SESSIONS = """
with made as (
    insert into sessions (movie, room, showtime, duration_minutes, price, currency, seat_count, created_by)
    select 'Nosferatu', 'Room ' || n, clock_timestamp() + interval '30 days', 94, 1250, 'EUR', $2, manager.id
    from generate_series(1, $1::int) as n
    cross join (select id from accounts where role = 'MANAGER' limit 1) as manager
    returning id
),
logged as (
    insert into events (kind, session_id, seats, at)
    select 'session.created', id, '[]', clock_timestamp()
    from made
)
select id
from made
"""

ADD_SEATS = """
insert into seats (session_id, position, placement, price)
select session_id, position, 'A' || position + 1, 1250
from unnest($1::bigint[]) as session_id
cross join generate_series(0, $2::int - 1) as position
order by session_id, position
"""

SEATS_IN_TURNS = """
select id
from seats
where session_id = any($1::bigint[])
order by position, session_id
"""


async def add_sessions(sql: Connection, count: int, seats_each: int) -> list[int]:
    """The ids of the new sessions on sale."""
    await sql.execute(WITHOUT_LOOK_UPS)
    session_ids = [row["id"] for row in await sql.fetch(ADD_SESSIONS, count, seats_each)]
    await sql.execute(ADD_SEATS, session_ids, seats_each)
    return session_ids


async def add_buyers(ground: Ground, url: str, count: int) -> list[tuple[Account, int]]:
    """At least `count` further pairs of a customer and a free seat, whose sessions take turns."""
    sql = await asyncpg.connect(url)
    session_ids = await add_sessions(sql, -(-count // SEATS_PER_SESSION), SEATS_PER_SESSION)
    seat_ids = [row["id"] for row in await sql.fetch(SEATS_IN_TURNS, session_ids)]
    await sql.execute("vacuum (analyze)")
    await sql.close()
    return [(ground.customers[n % len(ground.customers)], seat_id) for n, seat_id in enumerate(seat_ids)]


TURNS = 10
"""Reservations of a seat, one after the other: it was released and lost in turn, and sold at last."""

# Turns are a day apart. The ids are UUIDs of version 7, as the service makes them: they grow with time.
PLAN = """
create temp table planned as
select
    (lpad(to_hex((1000 * extract(epoch from created_at))::bigint), 12, '0') || '7' || substr(hash, 1, 3)
        || '8' || substr(hash, 4, 15))::uuid as id,
    created_at + case outcome when 'EXPIRED' then interval '31 s' else interval '10 s' end as settled_at,
    *
from (
    select seat_id, session_id, position, n, turn, md5(seat_id || ' ' || turn) as hash,
        case when turn = $2 then 'CONFIRMED' when turn % 2 = 0 then 'CANCELLED' else 'EXPIRED' end as outcome,
        now() - make_interval(days => 40 - turn) + make_interval(secs => n / 10.0) as created_at
    from (
        select id as seat_id, session_id, position, row_number() over (order by id) as n
        from seats
        where session_id = any($1::bigint[])
    ) as numbered
    cross join generate_series(1, $2::int) as turn
) as dated
"""

ADD_RESERVATIONS = """
insert into reservations (id, customer_id, session_id, seat_ids, state, total, currency, created_at, expires_at,
    settled_at, idempotency_key, request_fingerprint, reply)
select planned.id, ($1::uuid[])[(n + turn) % cardinality($1) + 1], session_id, array[seat_id], outcome, 1250, 'EUR',
    created_at, created_at + interval '30 s', settled_at, 'earlier-' || seat_id || '-' || turn,
    sha256(hash::bytea), repeat('x', 300)
from planned
order by created_at
"""

# Each seat's versions follow each other in the order of the events' ids.
ADD_EVENTS = """
insert into events (number, kind, session_id, reservation_id, seats, at)
select (select count(*) from events) + row_number() over (order by turn, version, n), kind, session_id, planned.id,
    jsonb_build_array(
        jsonb_build_object('seatId', seat_id, 'position', position, 'state', seat_state, 'version', version)
    ), at
from planned
cross join lateral (values
    ('reservation.held', 'HELD', 2 * turn, created_at),
    ('reservation.' || lower(outcome), case outcome when 'CONFIRMED' then 'SOLD' else 'AVAILABLE' end, 2 * turn + 1,
        settled_at)
) as event (kind, seat_state, version, at)
order by turn, version, n
"""

SELL_SEATS = """
update seats
set state = 'SOLD', reservation_id = planned.id, version = 2 * turn + 1
from planned
where seats.id = planned.seat_id
and outcome = 'CONFIRMED'
"""

ADD_PAYMENTS = """
insert into payments (reservation_id, amount, currency, paid_at)
select id, 1250, 'EUR', settled_at
from planned
where outcome = 'CONFIRMED'
order by settled_at
"""

# As the sequencer would have done long ago: those of the sessions first.
NUMBER_SESSIONS = """
with numbered as (
    update events
    set number = ordered.n
    from (select id, row_number() over (order by id) as n from events) as ordered
    where ordered.id = events.id
)
insert into cursors (name, number)
select 'log', count(*)
from events
"""

MOVE_LAST = """
update cursors
set number = (select max(number) from events)
where name = 'log'
"""


async def add_settled(ground: Ground, sql: Connection, count: int) -> None:
    """Settled reservations of other sessions, with payments and events: TURNS for each of their seats."""
    session_ids = await add_sessions(sql, -(-count // (TURNS * SEATS_PER_SESSION)), SEATS_PER_SESSION)
    await sql.execute(PLAN, session_ids, TURNS)
    await sql.execute(ADD_RESERVATIONS, [customer.id for customer in ground.customers])
    for statement in (NUMBER_SESSIONS, ADD_EVENTS, MOVE_LAST, SELL_SEATS, ADD_PAYMENTS):
        await sql.execute(statement)
