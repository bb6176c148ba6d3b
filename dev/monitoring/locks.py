"""Contention, and what the batches do about it."""

from dev.monitoring.expressions import each, rate, slowest, worst
from dev.monitoring.panels import Dashboard, Panel, Row

CONTENDED = 'reason=~"taken|locked|busy|limit"'
ENDING = 'loop=~"inbox|sweep"'

LOCKS = Dashboard(
    uid="rowlock-locks",
    title="Rowlock / Locks and batches",
    description="Who waits for whom: row locks, refusals, deadlocks, SKIP LOCKED and the batches that end holds.",
    rows=[
        Row(
            "Contention",
            [
                Panel("Wait for row locks (95 %)", "By the table whose rows are locked; the round trip is in it.", "s",
                      each(slowest, "rowlock_lock_wait_seconds", "lock")),
                Panel("Seconds waited a second", "All requests together. 1 means that on average one waits.", "short",
                      each(rate, "rowlock_lock_wait_seconds_sum", "lock"), stacked=True),
                Panel("Sessions waiting", "PostgreSQL's sessions that wait for a lock, as the observer saw them.",
                      "short", {"waiting": worst("rowlock_lock_waiting_sessions")}),
                Panel("Refused, by reason", "taken is a seat that somebody has; locked is a lock that did not come.",
                      "ops", each(rate, "rowlock_refusals_total", "reason", matching=CONTENDED), stacked=True),
                Panel("Tried again", "Transactions that were tried once more, by reason.", "ops",
                      each(rate, "rowlock_retries_total", "reason"), stacked=True),
                Panel("What PostgreSQL broke off", "Deadlocks must be 0: everybody locks in one order.", "ops",
                      each(rate, "rowlock_database_errors_total", "error")),
            ],
        ),
        Row(
            "Batches",
            [
                Panel("Holds a batch ends", "Mean size of a batch of inbox and sweep; one transaction each.", "short",
                      {"{{loop}}": rate("rowlock_batch_items_sum", "loop", matching=ENDING) + " / "
                       + rate("rowlock_batch_items_count", "loop", matching=ENDING)}),
                Panel("Skipped because locked", "Overdue holds that a batch passed over with SKIP LOCKED: somebody "
                      "pays or ends them just now.", "ops",
                      each(rate, "rowlock_rows_skipped_total", "loop"), stacked=True),
                Panel("Ended by", "Holds a second that ended unpaid, by who ended them.", "ops",
                      each(rate, "rowlock_holds_expired_total", "by"), stacked=True),
                Panel("A batch takes (95 %)", "One transaction of inbox or sweep.", "s",
                      each(slowest, "rowlock_batch_duration_seconds", "loop", matching=ENDING)),
                Panel("A COMMIT takes (95 %)", "The wait for PostgreSQL's disk.", "s",
                      {"commit": slowest("rowlock_commit_duration_seconds")}),
                Panel("Oldest transaction that wrote", "Somebody who holds locks for long; all others wait for it.",
                      "s", {"oldest": worst("rowlock_write_transaction_oldest_seconds"),
                            "oldest wait": worst("rowlock_lock_wait_oldest_seconds")}),
            ],
        ),
    ],
)  # fmt: skip
