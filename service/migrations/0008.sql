-- The default page of a history shows what was paid: without this index it reads past every hold that has ended.

create index reservations_purchases on reservations (customer_id, id) where state = 'CONFIRMED';
