"""Contention for row locks, and the batches that end holds."""

from dev.monitoring.expressions import each, rate, slowest, worst
from dev.monitoring.panels import Dashboard, Panel, Row

CONTENDED = 'reason=~"taken|locked|busy|limit"'
ENDING = 'loop=~"inbox|sweep"'

LOCKS = Dashboard(
    uid="rowlock-locks",
    title="Rowlock / Locks and batches",
    description="Row locks, refusals, deadlocks, SKIP LOCKED and the batches that end holds.",
    rows=[
        Row(
            "Contention",
            [
                Panel("Wait for row locks (95 %)", "By table. Includes one network round trip.", "s",
                      each(slowest, "rowlock_lock_wait_seconds", "lock")),
                Panel("Seconds waited per second", "Over all requests. 1 means that one request waits on average.",
                      "short",
                      each(rate, "rowlock_lock_wait_seconds_sum", "lock"), stacked=True),
                Panel("Sessions waiting", "Sessions in PostgreSQL that wait for a lock.",
                      "short", {"waiting": worst("rowlock_lock_waiting_sessions")}),
                Panel("Refused, by reason",
                      "taken: another customer has the seat. locked: the wait for a row lock timed out.",
                      "ops", each(rate, "rowlock_refusals_total", "reason", matching=CONTENDED), stacked=True),
                Panel("Retries", "Transactions that were tried again, by reason.", "ops",
                      each(rate, "rowlock_retries_total", "reason"), stacked=True),
                Panel("Errors from PostgreSQL", "Deadlocks must be 0: the service always locks in the same order.",
                      "ops",
                      each(rate, "rowlock_database_errors_total", "error")),
            ],
        ),
        Row(
            "Batches",
            [
                Panel("Holds per batch", "Mean size of a batch of the inbox or the sweep. A batch is one transaction.",
                      "short",
                      {"{{loop}}": rate("rowlock_batch_items_sum", "loop", matching=ENDING) + " / "
                       + rate("rowlock_batch_items_count", "loop", matching=ENDING)}),
                Panel("Skipped because locked", "Overdue holds that a batch passed over with SKIP LOCKED, because "
                      "another transaction is paying or ending them.", "ops",
                      each(rate, "rowlock_rows_skipped_total", "loop"), stacked=True),
                Panel("Ended by", "Unpaid holds that ended per second, by the part that ended them.", "ops",
                      each(rate, "rowlock_holds_expired_total", "by"), stacked=True),
                Panel("A batch takes (95 %)", "One transaction of inbox or sweep.", "s",
                      each(slowest, "rowlock_batch_duration_seconds", "loop", matching=ENDING)),
                Panel("A COMMIT takes (95 %)", "Mostly the wait for PostgreSQL's disk.", "s",
                      {"commit": slowest("rowlock_commit_duration_seconds")}),
                Panel("Oldest transaction that wrote",
                      "A high value: one session keeps its locks, and others wait for it.",
                      "s", {"oldest": worst("rowlock_write_transaction_oldest_seconds"),
                            "oldest wait": worst("rowlock_lock_wait_oldest_seconds")}),
            ],
        ),
    ],
)  # fmt: skip
