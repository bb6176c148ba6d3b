-- The self-audit: whose turn it is, and what the last finished round has found. The first replica inserts the row.
create table audits (
    only_row boolean primary key default true check (only_row),
    owner text,
    leased_until timestamptz,
    began_at timestamptz,
    finished_at timestamptz,
    checked jsonb,
    violations jsonb,
    check ((finished_at is null) = (violations is null))
);
