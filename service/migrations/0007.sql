-- A session can be taken off sale. The key of a creation or a sign-up makes its repetition get the first answer. The
-- index finds the sessions of a room at a time.

alter table sessions
    add column paused_at timestamptz,
    add column idempotency_key text check (length(idempotency_key) between 1 and 255),
    add column request_fingerprint bytea;
create unique index sessions_idempotency_key on sessions (created_by, idempotency_key)
    where idempotency_key is not null;
create index sessions_room on sessions (lower(room), showtime);

alter table accounts
    add column sign_up_key text check (length(sign_up_key) between 1 and 255);
