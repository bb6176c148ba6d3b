"""RabbitMQ: exchanges, queues, time to live, and the format of the messages. The only package that uses kombu.

May be imported by the expirer.

    relay -> exchange rowlock.events (topic, <kind>.<session>) -> queues of other systems
    relay -> exchange rowlock.holds (direct, <ttl>ms)
               -> queue rowlock.holds.<ttl>ms, whose messages die after the time to pay
                    -> exchange rowlock.dead -> queue rowlock.expired -> inbox
                                                  -> queue rowlock.parked: unreadable, failing, delivered too often

A confirm covers every queue that is bound to the exchange, so hints have an exchange of their own. Every call blocks:
each object is for one thread.
"""
