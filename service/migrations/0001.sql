-- The ledger: accounts, sessions with their seats, reservations, payments, and the log of what happened.
-- Money is an integer in minor units of an ISO 4217 currency. States are text with a CHECK, so that one can be added.

create table accounts (
    id uuid primary key,
    email text not null check (length(email) between 3 and 320),
    name text not null check (length(name) between 1 and 200),
    password_hash text not null,
    role text not null constraint accounts_role check (role in ('CUSTOMER', 'MANAGER')),
    created_at timestamptz not null default clock_timestamp()
);
create unique index accounts_email on accounts (lower(email));

-- Not a counter on accounts: a hold locks that row. By hash, because unknown addresses count too.
create table sign_in_failures (
    email_hash bytea primary key check (length(email_hash) = 32),
    failures int not null check (failures > 0),
    last_at timestamptz not null
);
create index sign_in_failures_last_at on sign_in_failures (last_at);

create table sessions (
    id bigint generated always as identity primary key,
    movie text not null check (length(movie) between 1 and 200),
    room text not null check (length(room) between 1 and 200),
    showtime timestamptz not null,
    duration_minutes int not null check (duration_minutes between 1 and 1440),
    price bigint not null check (price between 0 and 100000000),
    currency text not null check (currency ~ '^[A-Z]{3}$'),
    seat_count int not null check (seat_count between 16 and 100000),
    created_by uuid not null references accounts,
    created_at timestamptz not null default clock_timestamp()
);
create index sessions_showtime on sessions (showtime, id);

create table reservations (
    id uuid primary key,
    customer_id uuid not null references accounts,
    session_id bigint not null references sessions,
    seat_ids bigint[] not null check (cardinality(seat_ids) > 0),
    state text not null
        constraint reservations_state check (state in ('HELD', 'CONFIRMED', 'EXPIRED', 'CANCELLED')),
    total bigint not null check (total >= 0),
    currency text not null check (currency ~ '^[A-Z]{3}$'),
    created_at timestamptz not null,
    expires_at timestamptz not null check (expires_at > created_at),
    settled_at timestamptz,
    idempotency_key text check (length(idempotency_key) between 1 and 255),
    request_fingerprint bytea not null,
    reply text not null,
    constraint reservations_idempotency_key unique (customer_id, idempotency_key),
    constraint reservations_settled check ((state = 'HELD') = (settled_at is null))
);
create index reservations_overdue on reservations (expires_at) where state = 'HELD';
create index reservations_claims_of_session on reservations (session_id) where state in ('HELD', 'CONFIRMED');
create index reservations_claims_of_customer on reservations (customer_id, session_id)
    where state in ('HELD', 'CONFIRMED');
create index reservations_history on reservations (customer_id, id);

-- One column holds the owner, so a second one can't be written down. No index on what a change of state touches:
-- with one every change would write a new entry into all indexes. The free half of each page keeps new row versions on it.
create table seats (
    id bigint generated always as identity primary key,
    session_id bigint not null references sessions,
    position int not null check (position >= 0),
    placement text not null check (length(placement) between 1 and 32),
    price bigint not null check (price between 0 and 100000000),
    state text not null default 'AVAILABLE'
        constraint seats_state check (state in ('AVAILABLE', 'HELD', 'SOLD')),
    reservation_id uuid references reservations,
    version int not null default 1 check (version > 0),
    constraint seats_position unique (session_id, position),
    constraint seats_placement unique (session_id, placement),
    constraint seats_owner check ((state = 'AVAILABLE') = (reservation_id is null))
) with (fillfactor = 50);

create table payments (
    id bigint generated always as identity primary key,
    reservation_id uuid not null constraint payments_reservation unique references reservations,
    amount bigint not null check (amount >= 0),
    currency text not null check (currency ~ '^[A-Z]{3}$'),
    paid_at timestamptz not null
);

-- Append-only. An id is handed out before its commit; a number after it, so that a reader by number skips nothing.
-- The identity must stay at a cache of 1: events of one seat are in the order of their ids.
create table events (
    id bigint generated always as identity (cache 1) primary key,
    number bigint unique,
    kind text not null check (kind in (
        'session.created',
        'reservation.held', 'reservation.confirmed', 'reservation.expired', 'reservation.cancelled'
    )),
    session_id bigint not null references sessions,
    reservation_id uuid references reservations,
    seats jsonb not null,
    at timestamptz not null,
    check ((kind = 'session.created') = (reservation_id is null))
);
create index events_unnumbered on events (id) where number is null;

create table cursors (
    name text primary key,
    number bigint not null check (number >= 0),
    owner text,
    leased_until timestamptz,
    moved_at timestamptz not null default clock_timestamp()
);
