"""RabbitMQ: exchanges, queues, time to live, and what the messages look like. The only package that knows kombu's API.

    relay -> exchange rowlock.events (topic, <kind>.<session>) -> whatever others bind
    relay -> exchange rowlock.holds (direct, <ttl>ms)
               -> queue rowlock.holds.<ttl>ms, whose messages die after the time to pay
                    -> exchange rowlock.dead -> queue rowlock.expired -> inbox
                                                  -> queue rowlock.parked: unreadable, failing, delivered too often

A confirm covers every queue that is bound to the exchange, so hints have an exchange to which nobody else binds.
Everything here blocks: each object is for one thread.
"""
