"""Every named statement of the product with arguments from `tests.stage.big_data`, and how many rows it may read."""

from dataclasses import dataclass

CUSTOMER = "md5('12')::uuid"
CUSTOMERS = "array[md5('12')::uuid, md5('4711')::uuid, md5('11')::uuid]"
HELD = "array[md5('reservation 1010')::uuid, md5('reservation 2020')::uuid, md5('reservation 40')::uuid]"
SESSIONS = "array[" + ", ".join(map(str, range(10_001, 10_021))) + "]"
SEATS = "'{40001,40002,40003,140004,240005,340006,440007,540008,640009,940010}'"
"""Ten available seats."""
NEWEST = "'ffff0000-0000-0000-0000-000000000000'"
"""Few reservations have a greater id, as few are of the last minutes."""
EVENT = (
    "array['reservation.held'], array[10001], array[md5('reservation 1010')::uuid], array['[]'::jsonb],"
    " array[clock_timestamp()], array[null]"
)
DEADLINE = "clock_timestamp() + interval '30 s'"


@dataclass(frozen=True, slots=True)
class Example:
    """One execution: its arguments as SQL, and the maximum of rows and of pages that it may read."""

    arguments: str = ""
    rows_max: int = 20
    pages_max: int = 150


EXAMPLES: dict[str, list[Example]] = {
    "service.accounts.accounts.INSERT_ACCOUNT": [
        Example("md5('new')::uuid, 'new@example.com', 'New', 'hash', 'CUSTOMER', null")
    ],
    "service.accounts.accounts.FIND_SIGN_UP": [Example("'4711@Example.com', 'a-key'")],
    "service.accounts.accounts.COUNT_ATTEMPT": [Example("decode(md5('1') || md5('1'), 'hex'), 15")],
    "service.accounts.accounts.UNCOUNT_ATTEMPT": [Example("decode(md5('1') || md5('1'), 'hex')")],
    "service.accounts.accounts.FIND_ACCOUNT": [Example("'4711@Example.com'")],
    "service.accounts.accounts.FORGET_FAILURES": [Example("decode(md5('1') || md5('1'), 'hex')")],
    "service.accounts.accounts.TRIM_FAILURES": [Example("15, 1000", rows_max=2_000, pages_max=10_000)],
    "service.accounts.accounts.PROMOTE_ACCOUNT": [Example("'4711@Example.com'")],
    "service.database.EMIT_RECORD": [Example()],
    "service.database.PING": [Example()],
    "service.events.log.INSERT_EVENTS": [Example(EVENT)],
    "service.ledger.holding.LOCK_CUSTOMERS": [Example(CUSTOMERS)],
    "service.ledger.holding.LOCK_SEATS_TO_HOLD": [
        Example(f"{CUSTOMERS}, array['key 11', 'key 4710', null], {HELD}, {SEATS}, array[1, 2, 3, 4, 4, 4, 4, 4, 4, 4]")
    ],
    "service.ledger.holding.READ_CLAIMS": [
        Example(f"{CUSTOMERS}, array[10002, 10012, 10001], {HELD}, {NEWEST}", rows_max=30)
    ],
    "service.ledger.holding.WRITE_HOLDS": [
        Example(
            f"array[md5('new')::uuid], array[{CUSTOMER}], array[10001], array['{{40001,40002}}'], array[2500],"
            f" array['EUR'], array[clock_timestamp()], array[{DEADLINE}], array['new key'], array['\\x00'::bytea],"
            " array['reply'], array[null], array[40001, 40002], array[md5('new')::uuid, md5('new')::uuid],"
            f" {EVENT}"
        )
    ],
    "service.ledger.settling.LOCK_HELD": [Example(f"{HELD}, array[null, null, null]::uuid[]")],
    "service.ledger.expiring.IS_ANY_OVERDUE": [Example("array[md5('none')::uuid]")],
    "service.ledger.expiring.LOCK_OVERDUE": [Example("50, array[md5('none')::uuid]", rows_max=50, pages_max=400)],
    "service.ledger.settling.READ_RESERVATIONS": [Example(f"{HELD}, array[null, null, null]::uuid[]")],
    "service.ledger.settling.LOCK_SEATS": [Example(SEATS)],
    "service.ledger.settling.READ_SEATS": [Example(SEATS)],
    "service.ledger.settling.WRITE_SETTLEMENTS": [
        Example(
            f"clock_timestamp(), {HELD}, array['CONFIRMED', 'EXPIRED', 'CANCELLED'], '{{50051,100101,200001}}',"
            f" {HELD}, array['SOLD', 'AVAILABLE', 'AVAILABLE'], {EVENT}"
        )
    ],
    "service.sessions.listing.LIST_SESSIONS": [
        # Ten thousand sessions that are over lie before the first of these.
        Example("'1970-01-01Z', 0, 20", pages_max=10),
        Example("now() + interval '10 days', 10010, 20", pages_max=10),
    ],
    "service.sessions.listing.COUNT_CLAIMED_SEATS": [Example(SESSIONS, rows_max=40_020, pages_max=20_000)],
    "service.ledger.history.LIST_PURCHASES": [
        # One with thousands of ended holds.
        Example("md5('1')::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff', 20", rows_max=65),
        Example(f"{CUSTOMER}, 'ffffffff-ffff-ffff-ffff-ffffffffffff', 20", rows_max=45),
    ],
    "service.ledger.history.LIST_ATTEMPTS": [
        Example("md5('1')::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff', 20", rows_max=65),
        Example(f"{CUSTOMER}, 'ffffffff-ffff-ffff-ffff-ffffffffffff', 20", rows_max=45),
    ],
    "service.ledger.history.LIST_OF_STATE": [
        Example(f"{CUSTOMER}, 'ffffffff-ffff-ffff-ffff-ffffffffffff', 20, 'EXPIRED'", rows_max=45),
    ],
    "service.ledger.retention.DELETE_ENDED": [
        # Each listed seat is looked up, and the payment of each reservation.
        Example("md5('4711')::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff', 100, 0", rows_max=500, pages_max=2_500),
        Example(f"md5('4711')::uuid, {NEWEST}, 100, 400", rows_max=100, pages_max=120),
    ],
    "service.ledger.history.FIND_PURCHASE": [Example(f"md5('reservation 11')::uuid, {CUSTOMER}")],
    "service.ledger.unpaid.HAS_SESSION": [Example("10007")],
    "service.ledger.unpaid.TOP_UNPAID": [
        Example(f"10001, {NEWEST}, interval '10 minutes', 100, 20", rows_max=220, pages_max=250)
    ],
    "service.ledger.history.LIST_SEATS": [Example(SEATS)],
    "service.seatmap.stored.READ_LAYOUT": [Example("10007", rows_max=50_001, pages_max=5_000)],
    "service.seatmap.stored.READ_STATES": [Example("10007", rows_max=50_001, pages_max=5_000)],
    "service.seatmap.stored.READ_CHANGED": [Example("10007, 1", rows_max=50_001, pages_max=5_000)],
    "service.ledger.expiring.LOCK_DUE": [Example(HELD)],
    "service.ledger.expiring.COUNT_DUE": [Example(HELD)],
    "service.ledger.expiring.COUNT_OVERDUE": [
        Example("'infinity', array[md5('none')::uuid], 100", rows_max=100, pages_max=400)
    ],
    "service.events.cursors.READ_CURSOR": [Example("'broker', 'owner', 1500")],
    "service.events.numbering.FIND_UNNUMBERED": [Example("1000", rows_max=1_000, pages_max=1_000)],
    "service.events.numbering.NUMBER_EVENTS": [Example("'{11,12,13}', 0", pages_max=80)],
    "service.events.log.READ_NUMBERED": [Example("0, 500", pages_max=40)],
    "service.events.log.READ_COMMITTED": [Example("0, 500", rows_max=520, pages_max=600)],
    "service.events.log.TRIM_EVENTS": [Example("72, 1000", pages_max=40)],
    "service.audit.observations.OBSERVE_HOLDS": [Example("1000", rows_max=2_200, pages_max=3_000)],
    "service.audit.observations.OBSERVE_LOG": [Example("100", rows_max=110, pages_max=150)],
    "service.audit.observations.OBSERVE_READERS": [Example("72, 100", rows_max=220, pages_max=300)],
    "service.audit.ledger.CHECK_OVERDUE": [Example("60, 50", rows_max=50, pages_max=60)],
    "service.audit.ledger.CHECK_SEATS": [Example("40000, 100", rows_max=400, pages_max=1_500)],
    "service.audit.ledger.CHECK_RESERVATIONS": [Example("md5('4711')::uuid, 100", rows_max=700, pages_max=2_000)],
    "service.audit.event_log.READ_NEWEST": [Example("100", rows_max=110, pages_max=200)],
    "service.audit.event_log.READ_EVENTS": [Example("0, 100, 72", pages_max=40)],
    "service.audit.event_log.CHECK_EVENTS": [Example("0, 100", rows_max=400, pages_max=400)],
    "service.audit.event_log.READ_END": [Example("'{1,2,3}', 0, 100", rows_max=420, pages_max=500)],
    "service.audit.maps.LIST_SESSIONS_AFTER": [Example("10, 100", rows_max=100, pages_max=20)],
    "service.audit.maps.READ_VERSIONS": [Example("10007", rows_max=50_001, pages_max=5_000)],
    "service.sessions.creation.INSERT_SESSION": [
        Example(f"'M', 'R', {DEADLINE}, 100, 100, 'EUR', 16, {CUSTOMER}, 2, null, null"),
    ],
    "service.sessions.creation.FIND_BY_KEY": [Example(f"{CUSTOMER}, 'a-key'")],
    "service.sessions.creation.FIND_OVERLAP": [Example(f"'A room', {DEADLINE}, 100")],
    "service.sessions.creation.LIST_SEATS_OF_SESSION": [Example("1", rows_max=100_000, pages_max=10_000)],
    "service.sessions.pausing.PAUSE_SESSION": [Example("1")],
    "service.sessions.pausing.RESUME_SESSION": [Example("1")],
    "service.sessions.creation.INSERT_SEATS": [Example("1, 1250, array['B1', 'B2']")],
}

CURSORS = "its table has one row for each reader of the log"
QUEUES = "its table has one row for each time to pay that was ever set"
VERDICT = "its table has one row"
EXEMPT = {
    "service.audit.verdicts.READ_VERDICT": VERDICT,
    "service.audit.verdicts.CREATE_ROW": VERDICT,
    "service.audit.verdicts.TAKE_TURN": VERDICT,
    "service.audit.verdicts.KEEP_TURN": VERDICT,
    "service.audit.verdicts.WRITE_VERDICT": VERDICT,
    "service.events.wakeups.NOTIFY": "touches no table",
    "service.startup.READ_LIMITS": "touches no table",
    "service.migrate.GIVE_WAY": "has no plan",
    "service.seatmap.stored.READ_HISTORY": "looks at the server, and at one row of the catalogue of databases",
    "service.events.log.READ_LOG_NAME": "looks at the server, and at one row of the catalogue of databases",
    "service.events.numbering.ADD_LAST": CURSORS,
    "service.events.numbering.HAS_LAST": CURSORS,
    "service.events.numbering.LOCK_LAST": CURSORS,
    "service.events.cursors.ADD_CURSOR": CURSORS,
    "service.events.cursors.TAKE_LEASE": CURSORS,
    "service.events.cursors.MOVE_CURSOR": CURSORS,
    "service.events.cursors.RELEASE_LEASE": CURSORS,
    "service.events.cursors.LIST_CURSORS": CURSORS,
    "service.events.cursors.DROP_CURSOR": CURSORS,
    "expirer.loops.queues.NOTE_QUEUE": QUEUES,
    "expirer.loops.queues.LIST_OTHERS": QUEUES,
    "expirer.loops.queues.FORGET_QUEUES": QUEUES,
    "service.audit.observations.BOUND_STATEMENTS": "has no plan",
    "service.audit.observations.OBSERVE_SERVER": "looks at the server's sessions, which its max_connections bounds",
    "service.database.SCHEMA_NUMBER": "its table has one row",
    "service.migrate.LOCK_FOR_MIGRATION": "touches no table, and would wait for a migration",
    "service.sessions.creation.LOCK_TEXT": "touches no table",
    "service.sessions.creation.ALLOW_SLOW_STATEMENTS": "has no plan",
}
