-- Another replica no longer continues a round of the self-audit, it begins a new one. The violations of the current round are added
-- to those of the last one, also before the first round has finished.

alter table audits
    drop column round_began_at,
    drop column round,
    drop constraint audits_check;
