-- The times to pay for which RabbitMQ has a queue of hints: one of another time than today's is emptied and removed.

create table hold_queues (
    ttl_ms int primary key check (ttl_ms > 0)
);
