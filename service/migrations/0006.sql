-- Another replica no longer continues a round of the self-audit, it begins a new one. What the current round has found is
-- added to the violations of the last one, also before the first one is finished.

alter table audits
    drop column round_began_at,
    drop column round,
    drop constraint audits_check;
