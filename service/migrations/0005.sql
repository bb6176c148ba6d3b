-- The round of the self-audit that is in progress: when it began, its result so far and its position. And the parts that
-- the last finished round could not check.
alter table audits
    add column round_began_at timestamptz,
    add column round jsonb,
    add column unlooked jsonb;
