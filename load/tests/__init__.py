"""Faults and punctuality of the expirer with RabbitMQ and Redis, which want the machine for themselves."""
