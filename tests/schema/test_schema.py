"""What the tables refuse by themselves, so that no code can write it down."""
# ruff: noqa: S608 - the ids that are put into the statements are the tests' own

import re
from pathlib import Path

import asyncpg
import pytest

from service.database import Connection

pytestmark = pytest.mark.oldest_postgresql

ADA, OPEN, PAID, UNKNOWN = (f"00000000-0000-7000-8000-{number:012}" for number in (1, 2, 3, 99))

LEDGER = f"""
insert into accounts (id, email, name, password_hash, role)
values ('{ADA}', 'Ada@example.com', 'Ada', 'hash', 'CUSTOMER');
insert into sessions (movie, room, showtime, duration_minutes, price, currency, seat_count, created_by)
values ('Metropolis', 'Room 1', '2030-06-01T18:00Z', 153, 1250, 'EUR', 16, '{ADA}');
insert into reservations (id, customer_id, session_id, seat_ids, state, total, currency, created_at, expires_at,
    settled_at, idempotency_key, request_fingerprint, reply)
values
    ('{OPEN}', '{ADA}', 1, '{{1}}', 'HELD', 1250, 'EUR', now(), now() + interval '30 s', null, 'key', '', ''),
    ('{PAID}', '{ADA}', 1, '{{2}}', 'CONFIRMED', 1250, 'EUR', now(), now() + interval '30 s', now(), 'other', '', '');
insert into seats (session_id, position, placement, price, state, reservation_id)
values (1, 0, 'A1', 1250, 'HELD', '{OPEN}'), (1, 1, 'A2', 1250, 'SOLD', '{PAID}'), (1, 2, 'A3', 1250, default, null);
insert into payments (reservation_id, amount, currency, paid_at) values ('{PAID}', 1250, 'EUR', now());
insert into sign_in_failures values (decode(repeat('00', 32), 'hex'), 1, now());
insert into events (number, kind, session_id, reservation_id, seats, at)
values (1, 'session.created', 1, null, '[]', now()), (2, 'reservation.held', 1, '{OPEN}', '[]', now());
insert into cursors (name, number) values ('relay', 0);
insert into hold_queues (ttl_ms) values (30000);
insert into audits (finished_at, violations) values (now(), '{{}}');
"""

# By the name of what refuses it: a statement that has exactly one fault.
FAULTS = {
    "accounts_pkey": f"insert into accounts select '{ADA}', 'b@example.com', name, 'hash', role from accounts",
    "accounts_email": f"insert into accounts select '{UNKNOWN}', upper(email), name, 'hash', role from accounts",
    "accounts_email_check": "update accounts set email = 'ab'",
    "accounts_name_check": "update accounts set name = ''",
    "accounts_role": "update accounts set role = 'customer'",
    "sign_in_failures_pkey": "insert into sign_in_failures select * from sign_in_failures",
    "sign_in_failures_email_hash_check": "update sign_in_failures set email_hash = '\\x00'",
    "sign_in_failures_failures_check": "update sign_in_failures set failures = 0",
    "sessions_movie_check": "update sessions set movie = repeat('x', 201)",
    "sessions_room_check": "update sessions set room = ''",
    "sessions_duration_minutes_check": "update sessions set duration_minutes = 1441",
    "sessions_price_check": "update sessions set price = -1",
    "sessions_currency_check": "update sessions set currency = 'eur'",
    "sessions_seat_count_check": "update sessions set seat_count = 15",
    "sessions_created_by_fkey": f"update sessions set created_by = '{UNKNOWN}'",
    "reservations_pkey": f"update reservations set id = '{PAID}' where id = '{OPEN}'",
    "reservations_customer_id_fkey": f"update reservations set customer_id = '{UNKNOWN}' where id = '{OPEN}'",
    "reservations_session_id_fkey": "update reservations set session_id = 2",
    "reservations_seat_ids_check": "update reservations set seat_ids = '{}'",
    "reservations_state": f"update reservations set state = 'PAID' where id = '{PAID}'",
    "reservations_total_check": "update reservations set total = -1",
    "reservations_currency_check": "update reservations set currency = 'EURO'",
    "reservations_check": "update reservations set expires_at = created_at",
    "reservations_idempotency_key_check": f"update reservations set idempotency_key = '' where id = '{OPEN}'",
    "reservations_idempotency_key": f"update reservations set idempotency_key = 'other' where id = '{OPEN}'",
    "reservations_settled": f"update reservations set settled_at = now() where id = '{OPEN}'",
    "reservations_settled ": f"update reservations set state = 'EXPIRED' where id = '{OPEN}'",
    "reservations_settled  ": f"update reservations set settled_at = null where id = '{PAID}'",
    "sessions_idempotency_key_check": "update sessions set idempotency_key = ''",
    "accounts_sign_up_key_check": "update accounts set sign_up_key = ''",
    "seats_session_id_fkey": "update seats set session_id = 2",
    "seats_position_check": "update seats set position = -1 where position = 0",
    "seats_placement_check": "update seats set placement = repeat('x', 65) where position = 0",
    "seats_price_check": "update seats set price = 10000000000001",
    "seats_state": "update seats set state = 'RESERVED' where position = 0",
    "seats_version_check": "update seats set version = 0",
    "seats_position": "update seats set position = 1 where position = 0",
    "seats_placement": "update seats set placement = 'A2' where position = 0",
    "seats_owner": f"update seats set reservation_id = '{OPEN}' where position = 2",
    "seats_owner ": "update seats set state = 'SOLD' where position = 2",
    "seats_owner  ": "update seats set reservation_id = null where position = 0",
    "seats_owner   ": "update seats set state = 'AVAILABLE' where position = 1",
    "payments_reservation": "insert into payments (reservation_id, amount, currency, paid_at)"
    " select reservation_id, amount, currency, paid_at from payments",
    "payments_reservation_id_fkey": f"update payments set reservation_id = '{UNKNOWN}'",
    "payments_amount_check": "update payments set amount = -1",
    "payments_currency_check": "update payments set currency = ''",
    "events_number_key": "update events set number = 1 where number = 2",
    "events_kind_check": "update events set kind = 'reservation.paid' where number = 2",
    "events_session_id_fkey": "update events set session_id = 2",
    "events_check": "update events set reservation_id = null where number = 2",
    "events_check ": f"update events set reservation_id = '{OPEN}' where number = 1",
    "cursors_pkey": "insert into cursors (name, number) values ('relay', 0)",
    "cursors_number_check": "update cursors set number = -1",
    "hold_queues_pkey": "insert into hold_queues select * from hold_queues",
    "hold_queues_ttl_ms_check": "update hold_queues set ttl_ms = 0",
    "audits_pkey": "insert into audits default values",
    "audits_only_row_check": "insert into audits (only_row) values (false)",
    "payments_reservation_id_fkey ": f"delete from reservations where id = '{PAID}'",
    "reservations_session_id_fkey ": "delete from sessions",
}


@pytest.mark.parametrize(("constraint", "statement"), FAULTS.items(), ids=FAULTS)
async def test_a_statement_with_one_fault_is_refused_by_its_constraint(
    sql: Connection, constraint: str, statement: str
) -> None:
    transaction = sql.transaction()
    await transaction.start()
    try:
        await sql.execute(LEDGER)
        if statement.startswith("delete"):
            await sql.execute("delete from events")
        with pytest.raises(asyncpg.IntegrityConstraintViolationError) as refused:
            await sql.execute(statement)
        assert refused.value.constraint_name == constraint.rstrip()
    finally:
        await transaction.rollback()


CONSTRAINTS = """
select conname
from pg_constraint
where connamespace = 'public'::regnamespace
and contype in ('c', 'u', 'p', 'f')
"""
IDENTITY_KEYS = {"sessions_pkey", "seats_pkey", "payments_pkey", "events_pkey", "alembic_version_pkc"}


async def test_every_constraint_of_the_schema_has_a_fault_in_the_table(sql: Connection) -> None:
    names = {row["conname"] for row in await sql.fetch(CONSTRAINTS)}
    assert names - IDENTITY_KEYS == {name.rstrip() for name in FAULTS} - {"accounts_email"}


NULLABLE = """
select table_name || '.' || column_name as name
from information_schema.columns
where table_schema = 'public'
and is_nullable = 'YES'
"""


async def test_only_what_may_be_unknown_may_be_null(sql: Connection) -> None:
    assert {row["name"] for row in await sql.fetch(NULLABLE)} == {
        "reservations.settled_at",
        "reservations.idempotency_key",
        "seats.reservation_id",
        "events.number",
        "events.reservation_id",
        "cursors.owner",
        "cursors.leased_until",
        "audits.owner",
        "audits.leased_until",
        "audits.began_at",
        "audits.finished_at",
        "audits.checked",
        "audits.violations",
        "audits.unlooked",
        "reservations.traceparent",
        "events.traceparent",
        "sessions.paused_at",
        "sessions.idempotency_key",
        "sessions.request_fingerprint",
        "accounts.sign_up_key",
    }


async def test_half_of_each_page_of_seats_is_kept_for_new_versions(sql: Connection) -> None:
    assert await sql.fetchval("select reloptions from pg_class where oid = 'seats'::regclass") == ["fillfactor=50"]


SEAT_INDEXES = """
select indexrelid::regclass::text as index, pg_get_indexdef(indexrelid) as definition
from pg_index
where indrelid = 'seats'::regclass
"""


async def test_no_index_on_seats_is_touched_by_a_change_of_state(sql: Connection) -> None:
    indexes = {row["index"]: row["definition"] for row in await sql.fetch(SEAT_INDEXES)}
    assert indexes.keys() == {"seats_pkey", "seats_position", "seats_placement"}
    for definition in indexes.values():
        # The columns, a WHERE and an INCLUDE all come after the table.
        assert not re.search(r"\b(state|reservation_id|version)\b", definition.partition(" ON ")[2])


EVENTS_IDENTITY = """
select seqcache, seqincrement, seqcycle
from pg_sequence
where seqrelid = pg_get_serial_sequence('events', 'id')::regclass
"""


async def test_event_ids_are_handed_out_one_by_one(sql: Connection) -> None:
    assert tuple(await sql.fetchrow(EVENTS_IDENTITY) or ()) == (1, 1, False)


IS_CONSTRAINT = """
select to_regclass($1) is not null or exists (select from pg_constraint where conname = $1)
"""


async def test_constraints_that_the_code_tells_apart_by_name_are_there(sql: Connection) -> None:
    sources = "".join(path.read_text() for path in (Path(__file__).parents[2] / "service").rglob("*.py"))
    names = set(re.findall(r'constraint_name\s*[!=]=\s*"(\w+)"', sources))
    assert names
    for name in names:
        assert await sql.fetchval(IS_CONSTRAINT, name), name
