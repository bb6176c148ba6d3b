"""The values that labels may have, the buckets that metrics share, and how long a gauge is reported."""

from typing import Final

OF_CUSTOMERS: Final = ("hold", "pay", "release")
OPERATIONS: Final = (*OF_CUSTOMERS, "expire")
OUTCOMES: Final = ("done", "repeated", "refused", "unavailable", "unknown", "failed")
ANSWERS: Final = ("ok", "conflict", "refused", "limited", "unavailable", "failed")
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "other")
REASONS: Final = (
    "taken", "locked", "busy", "limit", "cooldown", "expired", "closed", "paused", "not_found", "several_sessions",
    "key_reused", "paid", "cancelled", "no_account", "away", "unknown",
)  # fmt: skip
LOCKS: Final = ("customers", "reservations", "seats")
RETRIES: Final = ("collision", "schema", "away", "overdue", "one_by_one", "outcome_unknown")
DATABASE_ERRORS: Final = (
    "pool_timeout", "lock_timeout", "statement_timeout", "deadlock", "serialization", "schema", "away",
    "commit_unknown",
)  # fmt: skip
BY: Final = ("inbox", "sweep", "buyer")
BATCH_LOOPS: Final = ("inbox", "sweep", "sequencer", "relay", "projector", "keeper")
LISTS: Final = ("hold", "settle")
LOOPS: Final = (*BATCH_LOOPS, "queues", "observer", "audit", "listener")
READERS: Final = ("sequencer", "relay", "projector")
SOURCES: Final = ("redis", "postgresql")
QUEUES: Final = ("holds", "expired", "parked")
AUDITED: Final = ("holds", "seats", "reservations", "events", "maps")
CHECKS: Final = ("owners", "money", "ownerless", "overdue", "log", "cache")

KNOWN_SECONDS: Final = 30.0
"""How long a gauge is reported after it was read. An older value would contradict replicas with newer ones."""
AGES: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30, 60, 300)
ITEMS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
