"""The rules that hold in the database after every test: SQL that returns the rows that break one."""

from service.database import Connection

RULES = {
    "a seat is in another state than its reservation says, or its reservation does not know it": """
select s.id, s.state, r.state as reservation_state
from seats as s
left join reservations as r on r.id = s.reservation_id
where s.reservation_id is not null
and (r.id is null or not s.id = any(r.seat_ids) or (s.state, r.state) not in (('HELD', 'HELD'), ('SOLD', 'CONFIRMED')))
""",
    "a living reservation does not own all of its seats": """
select r.id, r.state, seat_id
from reservations as r
cross join lateral unnest(r.seat_ids) as seat_id
left join seats as s on s.id = seat_id and s.reservation_id = r.id
where r.state in ('HELD', 'CONFIRMED')
and s.id is null
""",
    "a confirmed reservation has no payment of its total, or another one has a payment": """
select r.id, r.state, p.amount
from reservations as r
left join payments as p on p.reservation_id = r.id
where (r.state = 'CONFIRMED') <> (p.id is not null)
or (p.amount, p.currency) <> (r.total, r.currency)
""",
    "a payment is not the sum of the prices of its seats": """
select p.id, p.amount, sum(s.price)
from payments as p
join seats as s on s.reservation_id = p.reservation_id
group by p.id
having p.amount <> sum(s.price)
""",
    "a payment was made at or after the deadline": """
select r.id, p.paid_at, r.expires_at
from payments as p
join reservations as r on r.id = p.reservation_id
where p.paid_at >= r.expires_at or p.paid_at <> r.settled_at
""",
    "a hold was ended as expired before its deadline": """
select id, settled_at, expires_at
from reservations
where state = 'EXPIRED' and settled_at < expires_at
""",
    "the events of a reservation do not tell its story": """
select r.id, r.state, array_agg(e.kind order by e.id) as kinds
from reservations as r
left join events as e on e.reservation_id = r.id
group by r.id
having array_agg(e.kind order by e.id) <> case
    when r.state = 'HELD' then array['reservation.held']
    else array['reservation.held', 'reservation.' || lower(r.state)]
end
""",
    "a seat's versions in the log are not 2, 3, 4 ... in the order of the ids, up to its own": """
with told as (
    select (seat->>'seatId')::bigint as id, (seat->>'version')::int as version,
        row_number() over (partition by seat->>'seatId' order by e.id) as n
    from events as e
    cross join lateral jsonb_array_elements(e.seats) as seat
)
select s.id, s.version, array_agg(t.version order by t.n) as versions
from seats as s
left join told as t on t.id = s.id
group by s.id
having coalesce(bool_or(t.version <> t.n + 1), false) or s.version <> count(t.id) + 1
""",
}


async def broken_rules(connection: Connection) -> dict[str, list[str]]:
    """The rules that something breaks, each with up to five examples; empty where all hold."""
    found = {rule: await connection.fetch(query) for rule, query in RULES.items()}
    return {rule: [repr(row) for row in rows[:5]] for rule, rows in found.items() if rows}
