-- P1: a hold as one call of a function, as complete as ours: lock, key, clock, limit, reservation, seat and event.
-- pgbench calls it from 16 connections, in prepared statements. Each call is a transaction.

create sequence bench_numbers minvalue 0 cache 32;

create function bench_hold() returns uuid language plpgsql as $$
declare
    buyer bench_buyers;
    seat seats;
    show sessions;
    at timestamptz;
    made uuid := gen_random_uuid();
begin
    select * into strict buyer from bench_buyers where n = (select nextval('bench_numbers'));
    perform from accounts where id = buyer.customer_id for no key update;
    perform from reservations where customer_id = buyer.customer_id and idempotency_key = buyer.n::text;
    if found then
        raise exception 'the key was used';
    end if;
    select * into strict seat from seats where id = buyer.seat_id for no key update;
    select * into strict show from sessions where id = seat.session_id;
    at := clock_timestamp();
    if seat.state <> 'AVAILABLE' or show.showtime <= at then
        raise exception 'the seat is taken, or the sale is closed';
    end if;
    if (
        select coalesce(sum(cardinality(seat_ids)), 0)
        from reservations
        where customer_id = buyer.customer_id
        and session_id = seat.session_id
        and state in ('HELD', 'CONFIRMED')
    ) >= 10 then
        raise exception 'the limit is reached';
    end if;
    insert into reservations (
        id, customer_id, session_id, seat_ids, state, total, currency, created_at, expires_at,
        idempotency_key, request_fingerprint, reply
    )
    values (
        made, buyer.customer_id, seat.session_id, array[seat.id], 'HELD', seat.price, show.currency, at,
        at + interval '10 minutes', buyer.n::text, sha256(convert_to('hold ' || seat.id, 'UTF8')),
        json_build_object(
            'reservationId', made, 'sessionId', seat.session_id, 'state', 'HELD', 'seats', json_build_array(
                json_build_object('seatId', seat.id, 'placement', seat.placement, 'price', seat.price)
            ),
            'total', seat.price, 'currency', show.currency, 'expiresAt', at + interval '10 minutes', 'serverTime', at
        )::text
    );
    update seats set state = 'HELD', reservation_id = made, version = version + 1 where id = seat.id;
    insert into events (kind, session_id, reservation_id, seats, at)
    values (
        'reservation.held', seat.session_id, made,
        jsonb_build_array(jsonb_build_object(
            'seatId', seat.id, 'position', seat.position, 'state', 'HELD', 'version', seat.version + 1
        )),
        at
    );
    return made;
end
$$;
