-- The keeper deletes old reservations that were not paid. Each delete would read all seats and events for these foreign
-- keys, which have no index: one on seats would end their HOT updates. The statement that deletes makes sure that no
-- seat names the reservation, and the self-audit finds a seat whose reservation is missing. Events outlive what they
-- name. Locked in the order of a hold, so that neither waits for the other in a circle.

lock table reservations, seats, events in access exclusive mode;
alter table seats
    drop constraint seats_reservation_id_fkey;
alter table events
    drop constraint events_reservation_id_fkey;
