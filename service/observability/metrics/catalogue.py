"""Every metric: its name, type, unit, meaning, and its labels' values. `docs/metrics.md` is generated from it.

The code that counts, the dashboards and the alerts all refer to these constants.
"""

from typing import Final

from service.observability.metrics import values
from service.observability.metrics.families import Group

HTTP = Group("Requests", "API")
HTTP_SECONDS = HTTP.histogram(
    "rowlock_http_request_duration_seconds",
    "seconds",
    "Time from a request's arrival to the end of its answer. Outcomes: ok is 2xx and 3xx; conflict is 409; limited is "
    "429; refused is any other 4xx; unavailable is 503; failed is any other 5xx. Only unavailable and failed are the "
    "service's fault; every route reports both from the start, at 0.",
    {
        "method": values.METHODS,
        "route": "the API's route templates, and `other` for unknown paths",
        "outcome": values.ANSWERS,
    },
)
HTTP_IN_PROGRESS = HTTP.gauge("rowlock_http_requests_in_progress", "requests", "Requests in progress.")
RATE_LIMITED = HTTP.counter(
    "rowlock_rate_limited_total",
    "requests",
    "Requests refused with 429, by the limit that they exceeded.",
    {"limit": ("account", "payment", "address", "sign-in", "refused")},
)

OPERATIONS = Group("Operations", "both")
OPERATION_SECONDS = OPERATIONS.histogram(
    "rowlock_operation_duration_seconds",
    "seconds",
    "Duration of holds, payments and releases, one per request, and of expiry, one per batch of the sweep or the inbox "
    "that was not empty. Outcomes: done; repeated (the first reply again); refused (by a rule, see "
    "rowlock_refusals_total); unavailable (nothing was changed); unknown (a COMMIT was not answered, and its outcome "
    "was not found in time); failed.",
    {"operation": values.OPERATIONS, "outcome": values.OUTCOMES},
)
HOLDS_EXPIRED = OPERATIONS.counter(
    "rowlock_holds_expired_total",
    "holds",
    "Holds that expired unpaid, by what ended them: the inbox, the sweep, or another buyer's request for the seat. "
    "Holds that their own late payment ended are not counted.",
    {"by": values.BY},
)
LATENESS_SECONDS = OPERATIONS.histogram(
    "rowlock_expiry_lateness_seconds",
    "seconds",
    "Time from a hold's deadline to its expiry, by what ended it: the inbox, the sweep, or another buyer's request.",
    {"by": values.BY},
    buckets=values.AGES,
)

WRITES = Group("Writes of customers", "API")
REFUSALS = WRITES.counter(
    "rowlock_refusals_total",
    "requests",
    "Holds, payments and releases that were refused, by reason. taken: a seat is held or sold; limit: seats per "
    "customer; cooldown: too many holds of the customer ended unpaid; locked: the wait for a row lock timed out; busy: "
    "no connection or place in the queue was free, or a statement timed out; away: PostgreSQL does not answer.",
    {"operation": values.OF_CUSTOMERS, "reason": values.REASONS},
)
SEATS = WRITES.counter(
    "rowlock_seats_total",
    "seats",
    "Seats that customers held, paid for and released. Repeated requests do not count.",
    {"operation": values.OF_CUSTOMERS},
)
PAID = WRITES.counter(
    "rowlock_paid_minor_units_total",
    "minor units of the currency",
    "Revenue from sold seats.",
    {"currency": "ISO 4217 codes of the sessions on sale"},
)
RETRIES = WRITES.counter(
    "rowlock_retries_total",
    "tries",
    "Retried transactions, by reason. collision: a deadlock or a serialization failure; schema: a column got another "
    "type; away: the connection was lost "
    "before the COMMIT; overdue: an overdue hold on the seat had to be ended first; one_by_one: a batch failed, and "
    "its members were tried one by one, or in parts that want the same rows; outcome_unknown: the outcome of an "
    "unanswered COMMIT was looked up.",
    {"reason": values.RETRIES},
)
LIST_MEMBERS = WRITES.histogram(
    "rowlock_list_members",
    "requests",
    "Requests that shared a transaction: holds, or payments and releases (settle).",
    {"kind": values.LISTS},
    buckets=values.ITEMS[:8],
)
LIST_SECONDS = WRITES.histogram(
    "rowlock_list_duration_seconds", "seconds", "Duration of such a transaction.", {"kind": values.LISTS}
)
WRITES_IN_PROGRESS = WRITES.gauge("rowlock_writes_in_progress", "writes", "Holds, payments and releases in progress.")

DATABASE = Group("PostgreSQL", "both")
LOCK_SECONDS = DATABASE.histogram(
    "rowlock_lock_wait_seconds",
    "seconds",
    "Duration of statements that lock rows: the wait for the locks and one round trip.",
    {"lock": values.LOCKS},
)
COMMIT_SECONDS = DATABASE.histogram(
    "rowlock_commit_duration_seconds", "seconds", "Duration of COMMITs, mostly the wait for the disk."
)
DATABASE_ERRORS = DATABASE.counter(
    "rowlock_database_errors_total",
    "errors",
    "Errors of PostgreSQL or of the connection pool, by kind.",
    {"error": values.DATABASE_ERRORS},
)
POOL_WAIT_SECONDS = DATABASE.histogram(
    "rowlock_pool_wait_seconds",
    "seconds",
    "Wait for a connection of the pool, including the start of a new connection and waits that timed out.",
)
POOL_USED = DATABASE.gauge("rowlock_pool_connections_used", "connections", "Connections of the pool in use.")
POOL_SIZE = DATABASE.gauge(
    "rowlock_pool_size", "connections", "Maximum number of connections in the pool (ROWLOCK_POOL_SIZE)."
)

MAPS = Group("Seat maps", "API")
MAP_READS = MAPS.counter(
    "rowlock_seat_map_reads_total",
    "maps",
    "Seat maps served, by source.",
    {"source": values.SOURCES},
)
MAP_AGE_SECONDS = MAPS.histogram(
    "rowlock_seat_map_age_seconds",
    "seconds",
    "Age of the seat maps when they were served.",
    {"source": values.SOURCES},
    buckets=values.AGES,
)
MAP_BUILDS = MAPS.counter(
    "rowlock_seat_map_builds_total",
    "maps",
    "Seat maps built in Redis. abandoned: another build of the map had begun, or Redis became unavailable.",
    {"outcome": ("built", "abandoned")},
)

SIGN_IN = Group("Passwords", "API")
PASSWORD_SECONDS = SIGN_IN.histogram(
    "rowlock_password_check_duration_seconds",
    "seconds",
    "Duration of password checks and hashes, including the wait for a thread.",
)
PASSWORDS_WAITING = SIGN_IN.gauge(
    "rowlock_password_checks_waiting", "checks", "Password checks that are waiting or running."
)
SIGN_INS_DELAYED = SIGN_IN.gauge(
    "rowlock_sign_ins_delayed", "sign-ins", "Sign-ins that are being delayed after failed sign-ins of their account."
)

PROCESS = Group("Process", "both")
LOOP_LAG_SECONDS = PROCESS.histogram(
    "rowlock_event_loop_lag_seconds",
    "seconds",
    "Delay of a timer of the event loop, sampled twice a second.",
)
CACHE_ERRORS = PROCESS.counter("rowlock_cache_errors_total", "errors", "Calls to Redis that were not answered in time.")
CACHE_UP = PROCESS.gauge(
    "rowlock_cache_up", "1 or 0", "1 if the last call to Redis was answered. Absent without Redis.", across="livemin"
)
BUILD = PROCESS.gauge(
    "rowlock_build_info",
    "1",
    "The running release, and the number of the schema that it requires.",
    {"version": "the release", "schema": "the number of the newest migration"},
    across="livemax",
)

LOOPS = Group("Loops and batches", "expirer")
STEP_SECONDS = LOOPS.histogram(
    "rowlock_loop_step_duration_seconds",
    "seconds",
    "Duration of the steps of the expirer's loops, including empty steps.",
    {"loop": values.LOOPS},
)
STEP_FAILURES = LOOPS.counter(
    "rowlock_loop_failures_total", "steps", "Failed steps of the loop. The loop continues.", {"loop": values.LOOPS}
)
STEP_FINISHED = LOOPS.gauge(
    "rowlock_loop_last_success_timestamp_seconds",
    "seconds since 1970",
    "When the loop last completed a step. Absent before its first step, and if the loop is switched off.",
    {"loop": values.LOOPS},
    across="livemax",
)
BATCH_ITEMS = LOOPS.histogram(
    "rowlock_batch_items",
    "holds, events or rows",
    "Size of a batch: holds that the inbox or the sweep ended; events that were numbered, published or applied to "
    "Redis; rows that the keeper removed. Empty batches do not count.",
    {"loop": values.BATCH_LOOPS},
    buckets=values.ITEMS,
)
BATCH_SECONDS = LOOPS.histogram(
    "rowlock_batch_duration_seconds", "seconds", "Duration of a batch that was not empty.", {"loop": values.BATCH_LOOPS}
)
ROWS_SKIPPED = LOOPS.counter(
    "rowlock_rows_skipped_total",
    "holds",
    "Overdue holds that a batch skipped with SKIP LOCKED, because a payment or another replica had locked them. A "
    "batch counts at most as many as it may hold.",
    {"loop": ("inbox", "sweep")},
)
DEAD_LETTERS = LOOPS.counter(
    "rowlock_dead_letters_total",
    "messages",
    "Dead letters that the inbox has processed. The unreadable and failing ones were parked.",
    {"outcome": ("acknowledged", "unreadable", "failing")},
)
INBOX_PAUSES = LOOPS.counter(
    "rowlock_inbox_pauses_total", "pauses", "Batches that the inbox kept while PostgreSQL was unavailable."
)
CONFIRM_SECONDS = LOOPS.histogram(
    "rowlock_confirm_wait_seconds", "seconds", "Time from the first message of the relay's batch to its last confirm."
)
CONFIRM_TIMEOUTS = LOOPS.counter("rowlock_confirm_timeouts_total", "batches", "Batches whose confirms timed out.")
EVENTS_PUBLISHED = LOOPS.counter("rowlock_events_published_total", "events", "Events that RabbitMQ has confirmed.")
EVENTS_REFUSED = LOOPS.counter("rowlock_events_refused_total", "batches", "Batches with an event that a queue refused.")
HINTS_DROPPED = LOOPS.counter(
    "rowlock_hints_dropped_total", "hints", "Expiry messages that RabbitMQ refused. The sweep releases their seats."
)

OBSERVER = Group("Observer, every 5 seconds; all expirers report the same, so take the maximum", "expirer")
OVERDUE_OLDEST_SECONDS = OBSERVER.gauge(
    "rowlock_overdue_hold_oldest_seconds",
    "seconds",
    "Time since the deadline of the oldest overdue hold; 0 without one.",
)
OVERDUE = OBSERVER.gauge("rowlock_overdue_holds", "holds", "Overdue holds, counted up to 10,000.")
HELD = OBSERVER.gauge("rowlock_held_reservations", "holds", "Live holds, overdue ones included, counted up to 10,000.")
ON_SALE = OBSERVER.gauge(
    "rowlock_sessions_on_sale", "sessions", "Sessions before their showtime, counted up to 10,000."
)
LAG_EVENTS = OBSERVER.gauge(
    "rowlock_log_lag_events",
    "events",
    "Events that are waiting: for a number (sequencer), for RabbitMQ (relay), for Redis (projector). The sequencer's "
    "are counted up to 10,000.",
    {"reader": values.READERS},
)
LAG_SECONDS = OBSERVER.gauge(
    "rowlock_log_lag_seconds",
    "seconds",
    "Age of the oldest waiting event; 0 without one.",
    {"reader": values.READERS},
)
LOG_EVENTS = OBSERVER.gauge("rowlock_log_events", "events", "Numbered events in the log.")
LOG_STUCK_EVENTS = OBSERVER.gauge(
    "rowlock_log_stuck_events",
    "events",
    "Events older than ROWLOCK_LOG_KEEP_HOURS that this reader has not processed yet, counted up to 10,000.",
    {"reader": ("relay", "projector")},
)
OLDEST_WRITE_SECONDS = OBSERVER.gauge(
    "rowlock_write_transaction_oldest_seconds",
    "seconds",
    "Age of the server's oldest transaction that has written or is prepared. Seeing other accounts needs pg_monitor.",
)
LOCK_WAITERS = OBSERVER.gauge(
    "rowlock_lock_waiting_sessions", "sessions", "PostgreSQL sessions of this database that are waiting for a lock."
)
LOCK_OLDEST_SECONDS = OBSERVER.gauge(
    "rowlock_lock_wait_oldest_seconds",
    "seconds",
    "Age of the oldest statement that is waiting for a lock; 0 without one.",
)
MESSAGES = OBSERVER.gauge(
    "rowlock_broker_messages",
    "messages",
    "Messages in RabbitMQ: of live holds, dead letters for the inbox, and parked ones. Absent without RabbitMQ.",
    {"queue": values.QUEUES},
)
OBSERVED = OBSERVER.gauge(
    "rowlock_observer_last_success_timestamp_seconds",
    "seconds since 1970",
    "When the values of this group were last read. They are read every 5 seconds.",
    across="livemax",
)

AUDIT = Group("Self-audit; all expirers show the same values, so take the maximum", "expirer")
AUDIT_VIOLATIONS = AUDIT.gauge(
    "rowlock_audit_violations",
    "violations",
    "Violations of the last finished round and of the current one so far, which must be 0; NaN before the first round "
    "is finished. owners: a seat in two live reservations; money: a sold seat that is not paid once at its price; "
    "ownerless: an owner without a seat, or a seat without its owner; overdue: a hold that should have ended long ago; "
    "log: a state that differs from the log, or missing events; cache: a map in Redis that differs from the ledger.",
    {"check": values.CHECKS},
    across="livemax",
)
AUDIT_FINISHED = AUDIT.gauge(
    "rowlock_audit_last_round_timestamp_seconds",
    "seconds since 1970",
    "When the last round was finished; NaN before the first.",
    across="livemax",
)
AUDIT_ROUND_SECONDS = AUDIT.gauge(
    "rowlock_audit_round_duration_seconds", "seconds", "How long the last round took.", across="livemax"
)
AUDIT_INTERVAL_SECONDS = AUDIT.gauge(
    "rowlock_audit_interval_seconds",
    "seconds",
    "From the end of a round to the next one (ROWLOCK_AUDIT_INTERVAL_SECONDS).",
    across="livemax",
)
AUDIT_UNLOOKED = AUDIT.gauge(
    "rowlock_audit_unlooked",
    "parts",
    "Parts that the last finished round could not check. events: 1 where log and ledger could not be compared, "
    "because reservations or new events were too many, or because the log was trimmed or replaced meanwhile; maps: the "
    "maps that could not be read in time, or 1 where Redis was down or the projector had stopped.",
    {"what": values.AUDITED},
    across="livemax",
)
AUDIT_CHECKED = AUDIT.counter(
    "rowlock_audit_checked_total",
    "rows",
    "Rows that this expirer's audit has checked. holds: those that were overdue.",
    {"what": values.AUDITED},
)
AUDIT_REPAIRED = AUDIT.counter("rowlock_audit_repairs_total", "maps", "Wrong maps that the audit has deleted in Redis.")

GROUPS: Final = (HTTP, OPERATIONS, WRITES, DATABASE, MAPS, SIGN_IN, PROCESS, LOOPS, OBSERVER, AUDIT)
