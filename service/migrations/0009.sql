-- Prices of every currency of ISO 4217, and longer placements. The new rules allow all that the old ones do, so the rows
-- that exist are not read again (not valid): that would keep the tables locked for as long as it takes.

alter table sessions
    drop constraint sessions_price_check,
    add constraint sessions_price_check check (price between 0 and 10000000000000) not valid;
alter table seats
    drop constraint seats_price_check,
    add constraint seats_price_check check (price between 0 and 10000000000000) not valid,
    drop constraint seats_placement_check,
    add constraint seats_placement_check check (length(placement) between 1 and 64) not valid;
