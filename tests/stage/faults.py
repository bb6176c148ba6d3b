"""What the self-audit must find, and what only looks like it, as statements behind the service's back.

The names in braces are those of the stage: see `tests.audit.test_faults`.
"""
# ruff: noqa: S608 - the statements are the tests' own

FREE_FIRST_SEAT = "update seats set state = 'AVAILABLE', reservation_id = null where id = {first_seat};"
END_FIRST = "update reservations set state = 'CANCELLED', settled_at = now() where id = '{first}';"
NEXT_VERSION = "update seats set version = version + 1 where id = {first_seat};"
INSERT_PAYMENT = (
    "insert into payments (reservation_id, amount, currency, paid_at) values ('{first}', 1250, 'EUR', now());"
)
UNTOLD = "01926e2c-5a00-7000-8000-000000000001"
UNTOLD_HOLD = (
    f"insert into reservations select '{UNTOLD}', customer_id, session_id,"
    " array[{first_seat} + 3], 'HELD', total, currency, now(), now() + interval '30 s', null, null, '', ''"
    " from reservations where id = '{second}';"
    f"update seats set state = 'HELD', version = 2, reservation_id = '{UNTOLD}'"
    " where id = {first_seat} + 3"
)
UNTOLD_SALE = UNTOLD_HOLD + (
    f"; update reservations set state = 'CONFIRMED', settled_at = now() where id = '{UNTOLD}';"
    f"update seats set state = 'SOLD', version = 3 where reservation_id = '{UNTOLD}';"
    f"insert into payments (reservation_id, amount, currency, paid_at) values ('{UNTOLD}', 1250, 'EUR', now());"
)
UNTOLD_END = UNTOLD_HOLD + (
    f"; update reservations set state = 'EXPIRED', settled_at = now() where id = '{UNTOLD}';"
    f"update seats set state = 'AVAILABLE', version = 3, reservation_id = null where reservation_id = '{UNTOLD}';"
)
LOG_BEGAN_LONG_AGO = "update events set at = at - interval '1 hour';"

CANCEL_PAID = (
    "update reservations set state = 'CANCELLED' where id = '{paid}'; delete from payments;"
    "update seats set state = 'AVAILABLE', reservation_id = null, version = version + 1 where id = {paid_seat};"
)
TELL = (
    "insert into events (kind, session_id, reservation_id, seats, at) select 'reservation.' || lower(r.state),"
    " r.session_id, r.id, jsonb_build_array(jsonb_build_object('seatId', s.id, 'position', s.position,"
    " 'state', s.state, 'version', s.version)), now() from reservations as r join seats as s on s.id = any(r.seat_ids)"
    " where r.id = '{id}';"
)
GO_ON = TELL.replace("{id}", "{second}") * 3
TELL_OF_PAID = TELL.replace("{id}", "{paid}")
NUMBER = (
    "update events set number = given.number from (select id, (select max(number) from events) +"
    " row_number() over (order by id) as number from events where number is null) as given where events.id = given.id;"
    "update cursors set number = (select max(number) from events) where name = 'log'"
)

# By what is wrong: how it came about, and what each check names.
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
        + TELL.replace("{id}", "{second}"),
        {"owners": {"second", "paid_seat"}},
    ),
    "an owner that does not know of the seat": (
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
    "a seat whose reservation is gone": (
        (
            "set session_replication_role = replica; delete from reservations where id = '{first}';"
            "set session_replication_role = origin"
        ),
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
    "a sold seat that nobody has paid": ("delete from payments", {"money": {"paid", "paid_seat"}}),
    "a payment of another amount": ("update payments set amount = 1", {"money": {"paid"}}),
    "a payment in another currency": ("update payments set currency = 'USD'", {"money": {"paid"}}),
    "another price than the seats have": (
        "update payments set amount = 1; update reservations set total = 1 where id = '{paid}'",
        {"money": {"paid"}},
    ),
    "a payment for what is only held": (INSERT_PAYMENT, {"money": {"first", "first_seat"}}),
    "a payment for what has ended": (
        END_FIRST + FREE_FIRST_SEAT + NEXT_VERSION + INSERT_PAYMENT,
        {"money": {"first"}, "log": {"first"}},
    ),
    "a hold that nobody ends": (
        (
            "update reservations set created_at = created_at - interval '100 s',"
            " expires_at = expires_at - interval '100 s' where id = '{first}'"
        ),
        {"overdue": {"first"}},
    ),
    "an end that the log does not know": (
        END_FIRST + FREE_FIRST_SEAT + NEXT_VERSION,
        {"log": {"first"}},
    ),
    "an end that the log tells otherwise": (
        CANCEL_PAID,
        {"log": {"paid"}},
    ),
    "an end that the log tells otherwise, and goes on": (
        CANCEL_PAID + GO_ON + NUMBER,
        {"log": {"paid"}},
    ),
    "a held seat that was changed without a word": (
        NEXT_VERSION,
        {"log": {"first", "first_seat"}},
    ),
    "a sold seat that was changed without a word": (
        "update seats set version = version + 1 where id = {paid_seat}",
        {"log": {"paid", "paid_seat"}},
    ),
    "a seat that the log tells otherwise": (
        FREE_FIRST_SEAT,
        {"log": {"first", "first_seat"}, "ownerless": {"first", "first_seat"}},
    ),
    "a seat that has forgotten a change": (
        "update seats set version = 1 where id = {first_seat}",
        {"log": {"first", "first_seat"}},
    ),
    "a hold that the log does not know": (
        LOG_BEGAN_LONG_AGO + UNTOLD_HOLD,
        {"log": {UNTOLD}},
    ),
    "a sale that the log does not know": (
        LOG_BEGAN_LONG_AGO + UNTOLD_SALE,
        {"log": {UNTOLD}},
    ),
    "a hold that has begun and ended without a word": (
        LOG_BEGAN_LONG_AGO + UNTOLD_END,
        {"log": {UNTOLD}},
    ),
    "an event that is gone from the log": (
        "update events set at = at - interval '1 hour' where number = 1; delete from events where number = 4",
        {"log": {"second"}},
    ),
    "the last event is gone from the log": (
        "update events set at = at - interval '1 hour' where number = 1; delete from events where number = 5",
        {"log": {"paid"}},
    ),
    "all events are gone from the log": (
        "delete from events",
        {"log": {"first", "second", "paid"}},
    ),
}

# What looks like a fault and is none.
HARMLESS = {
    "an event that is gone from the first minute that is kept": "delete from events where number = 4",
    "an event that is old, and gone": (
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
    "a hold as old as the first event that is kept": UNTOLD_HOLD,
    "a sale as old as the first event that is kept": UNTOLD_SALE,
    "a sale of which only its last event tells": LOG_BEGAN_LONG_AGO
    + UNTOLD_SALE
    + TELL.replace("{id}", UNTOLD)
    + NUMBER,
    "a sale of which an event tells that has no number": LOG_BEGAN_LONG_AGO
    + UNTOLD_SALE
    + TELL.replace("{id}", UNTOLD),
    "an end that was mended, as the log tells at last": CANCEL_PAID + TELL_OF_PAID,
    "an end that was mended, as a later slice of the log tells": CANCEL_PAID + GO_ON + TELL_OF_PAID + GO_ON + NUMBER,
    "an end that was mended, as the same slice of the log tells": CANCEL_PAID + TELL_OF_PAID + NUMBER,
    "a sold seat that was mended, as a later slice of the log tells": (
        "update seats set version = 7 where id = {paid_seat};" + GO_ON + TELL_OF_PAID + NUMBER
    ),
}
