-- The round of the self-audit that is under way: since when, what it has found, and where it is, for whoever takes it up.
-- The release before knows nothing of it: what is not newer than the last verdict counts for nothing.
-- And what the last finished round could not look at.
alter table audits
    add column round_began_at timestamptz,
    add column round jsonb,
    add column unlooked jsonb;
