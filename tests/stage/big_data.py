"""A million seats in twenty sessions on sale, and 155,000 reservations: where a scan would be felt.

Besides, ten thousand sessions of former years. They have kept no seats here, but five reservations each.
"""

from service.database import Connection

FILL = """
-- The foreign keys hold by construction: to look each one up would take longer than all the rest.
set session_replication_role = replica;

insert into accounts (id, email, name, password_hash, role)
select md5(n::text)::uuid, n || '@example.com', 'Somebody', 'no hash', 'CUSTOMER'
from generate_series(1, 10000) as n;

insert into sessions (movie, room, showtime, duration_minutes, price, currency, seat_count, created_by)
select 'Nosferatu', 'Room ' || n, now() - make_interval(hours => n), 94, 900, 'EUR', 16, md5('1')::uuid
from generate_series(1, 10000) as n;

insert into sessions (movie, room, showtime, duration_minutes, price, currency, seat_count, created_by)
select 'Metropolis', 'Room ' || n, now() + make_interval(days => n), 153, 1250, 'EUR', 50000, md5('1')::uuid
from generate_series(1, 20) as n;

-- Each ten of them are of one session: one held (every hundredth of those overdue), three sold, six ended.
create temp table planned as
select n, md5('reservation ' || n)::uuid as id, md5((n % 10000 + 1)::text)::uuid as customer_id,
    10000 + n / 10 % 20 + 1 as session_id, n / 200 * 10 + n % 10 as position,
    (array['HELD', 'CONFIRMED', 'CONFIRMED', 'CONFIRMED', 'EXPIRED', 'EXPIRED', 'EXPIRED', 'EXPIRED', 'EXPIRED',
        'CANCELLED'])[n % 10 + 1] as state,
    now() - make_interval(secs => 60 + n) as created_at
from generate_series(0, 99999) as n;

insert into reservations (id, customer_id, session_id, seat_ids, state, total, currency, created_at, expires_at,
    settled_at, idempotency_key, request_fingerprint, reply)
select id, customer_id, session_id, array[(session_id - 10001) * 50000 + position + 1], state, 1250, 'EUR', created_at,
    case when state = 'HELD' and n % 1000 <> 0 then now() + interval '1 hour' else created_at + interval '30 s' end,
    case when state <> 'HELD' then created_at end, 'key ' || n, '', repeat('x', 300)
from planned;

insert into reservations (id, customer_id, session_id, seat_ids, state, total, currency, created_at, expires_at,
    settled_at, request_fingerprint, reply)
select md5('former ' || n)::uuid, md5((n % 10000 + 1)::text)::uuid, n % 10000 + 1, array[1], 'CONFIRMED', 900, 'EUR',
    now() - interval '1 year', now() - interval '1 year' + interval '30 s', now() - interval '1 year', '', 'x'
from generate_series(1, 50000) as n;

-- Somebody tries again and again.
insert into reservations (id, customer_id, session_id, seat_ids, state, total, currency, created_at, expires_at,
    settled_at, request_fingerprint, reply)
select md5('again ' || n)::uuid, md5('1')::uuid, 10001, array[50000], 'CANCELLED', 1250, 'EUR',
    now() - interval '1 day', now() - interval '1 day' + interval '30 s', now() - interval '1 day', '', 'x'
from generate_series(1, 5000) as n;

insert into seats (session_id, position, placement, price, state, reservation_id)
select s.n, p.n, 'A' || p.n, 1250,
    case taken.state when 'HELD' then 'HELD' when 'CONFIRMED' then 'SOLD' else 'AVAILABLE' end, taken.id
from generate_series(10001, 10020) as s (n)
cross join generate_series(0, 49999) as p (n)
left join planned as taken
    on taken.session_id = s.n and taken.position = p.n and taken.state in ('HELD', 'CONFIRMED')
order by s.n, p.n;

insert into payments (reservation_id, amount, currency, paid_at)
select id, 1250, 'EUR', created_at
from planned
where state = 'CONFIRMED';

insert into events (kind, session_id, reservation_id, seats, at)
select case told.n when 1 then 'reservation.held' else 'reservation.' || lower(state) end, session_id, id,
    '[{"seatId": 1, "position": 1, "state": "HELD", "version": 2}]', created_at
from planned
cross join generate_series(1, 2) as told (n)
where told.n = 1 or state <> 'HELD';

insert into sign_in_failures
select decode(md5(n::text) || md5(n::text), 'hex'), 1, now() - make_interval(secs => n)
from generate_series(1, 10000) as n;

drop table planned;
reset session_replication_role;
"""


async def fill(connection: Connection) -> None:
    """Makes it all in a migrated, empty database, with statistics for the planner."""
    await connection.execute(FILL)
    await connection.execute("vacuum analyze")
