-- The default page of a history has the purchases. Without this index it reads past every hold that has ended.

create index reservations_purchases on reservations (customer_id, id) where state = 'CONFIRMED';
