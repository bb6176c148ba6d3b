"""The faults that the self-audit must find, and harmless data that looks like them, as statements.

The names in braces are those of the stage: see `tests.audit.test_faults`.
"""
# ruff: noqa: S608 - the statements are the tests' own

FREE_FIRST_SEAT = "update seats set state = 'AVAILABLE', reservation_id = null where id = {first_seat};"
END_FIRST = "update reservations set state = 'CANCELLED', settled_at = now() where id = '{first}';"
NEXT_VERSION = "update seats set version = version + 1 where id = {first_seat};"
INSERT_PAYMENT = (
    "insert into payments (reservation_id, amount, currency, paid_at) values ('{first}', 1250, 'EUR', now());"
)
UNLOGGED = "01926e2c-5a00-7000-8000-000000000001"
UNLOGGED_HOLD = (
    f"insert into reservations select '{UNLOGGED}', customer_id, session_id,"
    " array[{first_seat} + 3], 'HELD', total, currency, now(), now() + interval '30 s', null, null, '', ''"
    " from reservations where id = '{second}';"
    f"update seats set state = 'HELD', version = 2, reservation_id = '{UNLOGGED}'"
    " where id = {first_seat} + 3"
)
UNLOGGED_SALE = UNLOGGED_HOLD + (
    f"; update reservations set state = 'CONFIRMED', settled_at = now() where id = '{UNLOGGED}';"
    f"update seats set state = 'SOLD', version = 3 where reservation_id = '{UNLOGGED}';"
    f"insert into payments (reservation_id, amount, currency, paid_at) values ('{UNLOGGED}', 1250, 'EUR', now());"
)
UNLOGGED_END = UNLOGGED_HOLD + (
    f"; update reservations set state = 'EXPIRED', settled_at = now() where id = '{UNLOGGED}';"
    f"update seats set state = 'AVAILABLE', version = 3, reservation_id = null where reservation_id = '{UNLOGGED}';"
)
LOG_BEGAN_LONG_AGO = "update events set at = at - interval '1 hour';"

CANCEL_PAID = (
    "update reservations set state = 'CANCELLED' where id = '{paid}'; delete from payments;"
    "update seats set state = 'AVAILABLE', reservation_id = null, version = version + 1 where id = {paid_seat};"
)
LOG_STATE = (
    "insert into events (kind, session_id, reservation_id, seats, at) select 'reservation.' || lower(r.state),"
    " r.session_id, r.id, jsonb_build_array(jsonb_build_object('seatId', s.id, 'position', s.position,"
    " 'state', s.state, 'version', s.version)), now() from reservations as r join seats as s on s.id = any(r.seat_ids)"
    " where r.id = '{id}';"
)
GO_ON = LOG_STATE.replace("{id}", "{second}") * 3
LOG_PAID = LOG_STATE.replace("{id}", "{paid}")
NUMBER = (
    "update events set number = given.number from (select id, (select max(number) from events) +"
    " row_number() over (order by id) as number from events where number is null) as given where events.id = given.id;"
    "update cursors set number = (select max(number) from events) where name = 'log'"
)

# By kind: the statements that make it, and the ids that each check names.
FAULTS: dict[str, tuple[str, dict[str, set[str]]]] = {
    "a seat in two live reservations": (
        (
            "update reservations set seat_ids = seat_ids || {first_seat}, total = 2500 where id = '{second}';"
            "update seats set reservation_id = '{second}' where id = {first_seat}"
        ),
        {"owners": {"first", "first_seat"}},
    ),
    "a seat in two paid reservations": (
        (
            "update reservations set seat_ids = seat_ids || {paid_seat}, total = 2500, state = 'CONFIRMED',"
            " settled_at = now() where id = '{second}';"
            "insert into payments (reservation_id, amount, currency, paid_at) values ('{second}', 2500, 'EUR', now());"
            "update seats set state = 'SOLD', version = version + 1 where id = {second_seat};"
        )
        + LOG_STATE.replace("{id}", "{second}"),
        {"owners": {"second", "paid_seat"}},
    ),
    "an owner that does not list the seat": (
        "update seats set reservation_id = '{second}' where id = {first_seat}",
        {"ownerless": {"first", "second", "first_seat"}},
    ),
    "a hold without its seat": (
        FREE_FIRST_SEAT + NEXT_VERSION,
        {"ownerless": {"first", "first_seat"}},
    ),
    "a hold whose seat is sold": (
        "update seats set state = 'SOLD' where id = {first_seat};" + NEXT_VERSION,
        {"ownerless": {"first", "first_seat"}, "log": {"first", "first_seat"}},
    ),
    "a paid reservation without its seat": (
        "update seats set state = 'AVAILABLE', reservation_id = null where id = {paid_seat}",
        {"ownerless": {"paid", "paid_seat"}, "log": {"paid", "paid_seat"}},
    ),
    "a held seat whose hold has ended": (
        END_FIRST,
        {"ownerless": {"first", "first_seat"}, "log": {"first"}},
    ),
    "a seat whose reservation is missing": (
        "delete from reservations where id = '{first}'",
        {"ownerless": {"first", "first_seat"}},
    ),
    "a hold whose seat belongs to one that has ended": (
        (
            "update reservations set state = 'CANCELLED', settled_at = now(), seat_ids = seat_ids || {first_seat}"
            " where id = '{second}'; update seats set reservation_id = '{second}' where id = {first_seat};"
            "update seats set state = 'AVAILABLE', reservation_id = null, version = 3 where id = {second_seat}"
        ),
        {"ownerless": {"first", "second", "first_seat"}, "log": {"second"}},
    ),
    "a sold seat without a payment": ("delete from payments", {"money": {"paid", "paid_seat"}}),
    "a payment of another amount": ("update payments set amount = 1", {"money": {"paid"}}),
    "a payment in another currency": ("update payments set currency = 'USD'", {"money": {"paid"}}),
    "another price than the seats have": (
        "update payments set amount = 1; update reservations set total = 1 where id = '{paid}'",
        {"money": {"paid"}},
    ),
    "a payment of an open hold": (INSERT_PAYMENT, {"money": {"first", "first_seat"}}),
    "a payment of an ended hold": (
        END_FIRST + FREE_FIRST_SEAT + NEXT_VERSION + INSERT_PAYMENT,
        {"money": {"first"}, "log": {"first"}},
    ),
    "a hold that stays overdue": (
        (
            "update reservations set created_at = created_at - interval '100 s',"
            " expires_at = expires_at - interval '100 s' where id = '{first}'"
        ),
        {"overdue": {"first"}},
    ),
    "an end without an event": (
        END_FIRST + FREE_FIRST_SEAT + NEXT_VERSION,
        {"log": {"first"}},
    ),
    "an end that differs from the log": (
        CANCEL_PAID,
        {"log": {"paid"}},
    ),
    "an end that differs from an early slice of the log": (
        CANCEL_PAID + GO_ON + NUMBER,
        {"log": {"paid"}},
    ),
    "a change of a held seat without an event": (
        NEXT_VERSION,
        {"log": {"first", "first_seat"}},
    ),
    "a change of a sold seat without an event": (
        "update seats set version = version + 1 where id = {paid_seat}",
        {"log": {"paid", "paid_seat"}},
    ),
    "a seat that differs from the log": (
        FREE_FIRST_SEAT,
        {"log": {"first", "first_seat"}, "ownerless": {"first", "first_seat"}},
    ),
    "a seat with an older version": (
        "update seats set version = 1 where id = {first_seat}",
        {"log": {"first", "first_seat"}},
    ),
    "a hold without an event": (
        LOG_BEGAN_LONG_AGO + UNLOGGED_HOLD,
        {"log": {UNLOGGED}},
    ),
    "a sale without an event": (
        LOG_BEGAN_LONG_AGO + UNLOGGED_SALE,
        {"log": {UNLOGGED}},
    ),
    "an ended hold without an event": (
        LOG_BEGAN_LONG_AGO + UNLOGGED_END,
        {"log": {UNLOGGED}},
    ),
    "a missing event": (
        "update events set at = at - interval '1 hour' where number = 1; delete from events where number = 4",
        {"log": {"second"}},
    ),
    "a missing last event": (
        "update events set at = at - interval '1 hour' where number = 1; delete from events where number = 5",
        {"log": {"paid"}},
    ),
    "a missing log": (
        "delete from events",
        {"log": {"first", "second", "paid"}},
    ),
}

# These look like faults, and are not.
HARMLESS = {
    "an event missing from the log's first minute": "delete from events where number = 4",
    "a missing event that was old": (
        "update events set at = at - make_interval(hours => 101 - number::int) where number < 4;"
        "delete from events where number = 4"
    ),
    "a hold that is overdue for less than a minute": (
        "update reservations set created_at = created_at - interval '60 s', expires_at = expires_at - interval '60 s'"
        " where id = '{first}'"
    ),
    "a payment long ago": (
        "update reservations set created_at = created_at - interval '1 day', expires_at = expires_at - interval '1 day'"
        " where id = '{paid}'"
    ),
    "a hold as old as the first event that is kept": UNLOGGED_HOLD,
    "a sale as old as the first event that is kept": UNLOGGED_SALE,
    "a sale with only its last event": LOG_BEGAN_LONG_AGO
    + UNLOGGED_SALE
    + LOG_STATE.replace("{id}", UNLOGGED)
    + NUMBER,
    "a sale whose event has no number": LOG_BEGAN_LONG_AGO + UNLOGGED_SALE + LOG_STATE.replace("{id}", UNLOGGED),
    "a repaired end with an event that has no number": CANCEL_PAID + LOG_PAID,
    "a repaired end with an event in a later slice": CANCEL_PAID + GO_ON + LOG_PAID + GO_ON + NUMBER,
    "a repaired end with an event in the same slice": CANCEL_PAID + LOG_PAID + NUMBER,
    "a repaired sold seat with an event in a later slice": (
        "update seats set version = 7 where id = {paid_seat};" + GO_ON + LOG_PAID + NUMBER
    ),
}
