"""Every metric: its name, type, unit, meaning, and its labels' values. `docs/metrics.md` is made of it.

Who counts something takes the metric from here; dashboards and alerts are made with these names too.
"""

from typing import Final

from service.observability.metrics import values
from service.observability.metrics.families import Group

HTTP = Group("Requests", "API")
HTTP_SECONDS = HTTP.histogram(
    "rowlock_http_request_duration_seconds",
    "seconds",
    "From the request's arrival to the end of its answer. Outcomes: ok is 2xx and 3xx; conflict 409; limited 429; "
    "refused any other 4xx; unavailable 503; failed any other 5xx. Of these only unavailable and failed are the "
    "service's fault; each route has them at 0 from the start.",
    {
        "method": values.METHODS,
        "route": "the API's route templates, and `other` for paths that are none",
        "outcome": values.ANSWERS,
    },
)
HTTP_IN_PROGRESS = HTTP.gauge("rowlock_http_requests_in_progress", "requests", "Requests that are not answered yet.")
RATE_LIMITED = HTTP.counter(
    "rowlock_rate_limited_total",
    "requests",
    "Requests refused with 429, by the limit that was reached.",
    {"limit": ("account", "address", "sign-in")},
)

OPERATIONS = Group("Operations", "both")
OPERATION_SECONDS = OPERATIONS.histogram(
    "rowlock_operation_duration_seconds",
    "seconds",
    "Holds, payments and releases, one for each request, and expire, one for each batch of the sweep or the inbox "
    "that found something. Outcomes: done; repeated (the same answer again); refused (by a rule: see "
    "rowlock_refusals_total); unavailable (nothing was changed); unknown (a COMMIT without an answer that could not "
    "be looked up in time); failed.",
    {"operation": values.OPERATIONS, "outcome": values.OUTCOMES},
)
HOLDS_EXPIRED = OPERATIONS.counter(
    "rowlock_holds_expired_total",
    "holds",
    "Holds that ended unpaid, by who ended them. One that its own late payment has ended is not among them.",
    {"by": values.BY},
)
LATENESS_SECONDS = OPERATIONS.histogram(
    "rowlock_expiry_lateness_seconds",
    "seconds",
    "Ended holds: from the deadline to the end. by: the inbox, the sweep, or a buyer who wanted the seat.",
    {"by": values.BY},
    buckets=values.AGES,
)

WRITES = Group("Writes of customers", "API")
REFUSALS = WRITES.counter(
    "rowlock_refusals_total",
    "requests",
    "Holds, payments and releases that were not granted, by reason. taken: a seat is somebody's; limit: seats per "
    "customer; locked: a row lock did not come in time; busy: no connection or place in the queue, or a statement took "
    "too long; away: PostgreSQL does not answer.",
    {"operation": values.OF_CUSTOMERS, "reason": values.REASONS},
)
SEATS = WRITES.counter(
    "rowlock_seats_total",
    "seats",
    "Seats held, sold (pay) and given back by their customers (release). Repetitions do not count.",
    {"operation": values.OF_CUSTOMERS},
)
PAID = WRITES.counter(
    "rowlock_paid_minor_units_total",
    "minor units of the currency",
    "Money for sold seats.",
    {"currency": "ISO 4217, as sessions are sold in them"},
)
RETRIES = WRITES.counter(
    "rowlock_retries_total",
    "tries",
    "Transactions tried once more. collision: a deadlock or a serialization failure; away: the connection was lost "
    "before the COMMIT; overdue: an overdue hold was in the way and was ended first; one_by_one: a batch failed, and "
    "each of its members was tried alone; outcome_unknown: a look-up of a COMMIT without an answer.",
    {"reason": values.RETRIES},
)
WRITES_IN_PROGRESS = WRITES.gauge("rowlock_writes_in_progress", "writes", "Holds, payments and releases under way.")

DATABASE = Group("PostgreSQL, as the process sees it", "both")
LOCK_SECONDS = DATABASE.histogram(
    "rowlock_lock_wait_seconds",
    "seconds",
    "Statements that wait for row locks, from being sent to their answer: the wait and one round trip.",
    {"lock": values.LOCKS},
)
COMMIT_SECONDS = DATABASE.histogram(
    "rowlock_commit_duration_seconds", "seconds", "COMMITs, from being sent to their answer: the wait for the disk."
)
DATABASE_ERRORS = DATABASE.counter(
    "rowlock_database_errors_total",
    "errors",
    "What PostgreSQL, or the pool, refused or broke off, by its kind.",
    {"error": values.DATABASE_ERRORS},
)
POOL_WAIT_SECONDS = DATABASE.histogram(
    "rowlock_pool_wait_seconds",
    "seconds",
    "Wait for a connection of the pool, in vain or not, a new connection's start included.",
)
POOL_USED = DATABASE.gauge("rowlock_pool_connections_used", "connections", "Connections of the pool in use.")
POOL_SIZE = DATABASE.gauge(
    "rowlock_pool_size", "connections", "Connections that the pool may have (ROWLOCK_POOL_SIZE)."
)

MAPS = Group("Seat maps", "API")
MAP_READS = MAPS.counter(
    "rowlock_seat_map_reads_total",
    "maps",
    "Seat maps given to requests, by where they were read.",
    {"source": values.SOURCES},
)
MAP_AGE_SECONDS = MAPS.histogram(
    "rowlock_seat_map_age_seconds",
    "seconds",
    "Age of the maps given to requests.",
    {"source": values.SOURCES},
    buckets=values.AGES,
)
MAP_BUILDS = MAPS.counter(
    "rowlock_seat_map_builds_total",
    "maps",
    "Maps built in Redis. abandoned: somebody else had begun one anew, or Redis went away.",
    {"outcome": ("built", "abandoned")},
)

SIGN_IN = Group("Passwords", "API")
PASSWORD_SECONDS = SIGN_IN.histogram(
    "rowlock_password_check_duration_seconds",
    "seconds",
    "Password checks and hashes, their wait for the thread included.",
)
PASSWORDS_WAITING = SIGN_IN.gauge(
    "rowlock_password_checks_waiting", "checks", "Password checks that wait or are at work."
)
SIGN_INS_DELAYED = SIGN_IN.gauge(
    "rowlock_sign_ins_delayed", "sign-ins", "Sign-ins that wait after failures of their account."
)

PROCESS = Group("Process", "both")
LOOP_LAG_SECONDS = PROCESS.histogram(
    "rowlock_event_loop_lag_seconds",
    "seconds",
    "How much later than asked for the event loop woke somebody up; sampled twice a second.",
)
CACHE_ERRORS = PROCESS.counter("rowlock_cache_errors_total", "errors", "Calls to Redis without an answer in time.")
CACHE_UP = PROCESS.gauge(
    "rowlock_cache_up", "1 or 0", "Whether Redis answered last; absent without Redis.", across="livemin"
)
BUILD = PROCESS.gauge(
    "rowlock_build_info",
    "1",
    "What runs: the release, and the schema's number that it needs.",
    {"version": "one, the release's", "schema": "one, the newest migration's"},
    across="livemax",
)

LOOPS = Group("Loops and batches", "expirer")
STEP_SECONDS = LOOPS.histogram(
    "rowlock_loop_step_duration_seconds",
    "seconds",
    "Steps of the expirer's loops, empty ones too.",
    {"loop": values.LOOPS},
)
STEP_FAILURES = LOOPS.counter(
    "rowlock_loop_failures_total", "steps", "Steps that failed; the loop goes on.", {"loop": values.LOOPS}
)
STEP_FINISHED = LOOPS.gauge(
    "rowlock_loop_last_success_timestamp_seconds",
    "seconds since 1970",
    "When the loop last finished a step without a failure; absent before the first one, and where the loop is off.",
    {"loop": values.LOOPS},
    across="livemax",
)
BATCH_ITEMS = LOOPS.histogram(
    "rowlock_batch_items",
    "holds, events or rows",
    "What one batch did: holds that the inbox or the sweep ended; events that were numbered, published or brought to "
    "Redis; rows that the keeper removed. Empty batches do not count.",
    {"loop": values.BATCH_LOOPS},
    buckets=values.ITEMS,
)
BATCH_SECONDS = LOOPS.histogram(
    "rowlock_batch_duration_seconds", "seconds", "How long such a batch took.", {"loop": values.BATCH_LOOPS}
)
ROWS_SKIPPED = LOOPS.counter(
    "rowlock_rows_skipped_total",
    "holds",
    "Overdue holds that a batch passed over with SKIP LOCKED: they are being paid, or somebody else ends them. Each "
    "batch counts at most as many as it may have.",
    {"loop": ("inbox", "sweep")},
)
DEAD_LETTERS = LOOPS.counter(
    "rowlock_dead_letters_total",
    "messages",
    "Dead letters that the inbox is done with. unreadable and failing ones were parked.",
    {"outcome": ("acknowledged", "unreadable", "failing")},
)
INBOX_PAUSES = LOOPS.counter(
    "rowlock_inbox_pauses_total", "pauses", "Batches that the inbox kept because PostgreSQL was away."
)
CONFIRM_SECONDS = LOOPS.histogram(
    "rowlock_confirm_wait_seconds", "seconds", "A batch of the relay, from its first message to its last confirm."
)
CONFIRM_TIMEOUTS = LOOPS.counter(
    "rowlock_confirm_timeouts_total", "batches", "Batches whose confirms did not come in time."
)
EVENTS_PUBLISHED = LOOPS.counter("rowlock_events_published_total", "events", "Events that RabbitMQ has confirmed.")
EVENTS_REFUSED = LOOPS.counter("rowlock_events_refused_total", "batches", "Batches of which a queue refused an event.")
HINTS_DROPPED = LOOPS.counter(
    "rowlock_hints_dropped_total", "hints", "Hints that RabbitMQ did not take: the sweep gives these seats back."
)

OBSERVER = Group("What the observer finds every 5 seconds; each expirer says the same, so take the maximum", "expirer")
OVERDUE_OLDEST_SECONDS = OBSERVER.gauge(
    "rowlock_overdue_hold_oldest_seconds", "seconds", "How long the oldest overdue hold is overdue; 0 without one."
)
OVERDUE = OBSERVER.gauge("rowlock_overdue_holds", "holds", "Holds that are overdue; counted up to 10,000.")
HELD = OBSERVER.gauge(
    "rowlock_held_reservations", "holds", "Holds that are neither paid nor ended; counted up to 10,000."
)
ON_SALE = OBSERVER.gauge(
    "rowlock_sessions_on_sale", "sessions", "Sessions before their showtime; counted up to 10,000."
)
LAG_EVENTS = OBSERVER.gauge(
    "rowlock_log_lag_events",
    "events",
    "Events that wait: for a number (sequencer), for RabbitMQ (relay), for Redis (projector). The sequencer's are "
    "counted up to 10,000.",
    {"reader": values.READERS},
)
LAG_SECONDS = OBSERVER.gauge(
    "rowlock_log_lag_seconds",
    "seconds",
    "Age of the first event that waits; 0 without one.",
    {"reader": values.READERS},
)
LOG_EVENTS = OBSERVER.gauge("rowlock_log_events", "events", "Numbered events that are kept.")
LOG_STUCK_EVENTS = OBSERVER.gauge(
    "rowlock_log_stuck_events",
    "events",
    "Events beyond ROWLOCK_LOG_KEEP_HOURS that stay because this reader has not passed them; counted up to 10,000.",
    {"reader": ("relay", "projector")},
)
OLDEST_WRITE_SECONDS = OBSERVER.gauge(
    "rowlock_write_transaction_oldest_seconds",
    "seconds",
    "Age of the oldest transaction on the server that wrote or is prepared; of others' accounts only with pg_monitor.",
)
LOCK_WAITERS = OBSERVER.gauge(
    "rowlock_lock_waiting_sessions", "sessions", "PostgreSQL's sessions of this database that wait for a lock."
)
LOCK_OLDEST_SECONDS = OBSERVER.gauge(
    "rowlock_lock_wait_oldest_seconds", "seconds", "Age of the oldest statement that waits for a lock; 0 without one."
)
MESSAGES = OBSERVER.gauge(
    "rowlock_broker_messages",
    "messages",
    "Messages in RabbitMQ: hints of live holds, dead letters for the inbox, parked ones. Absent without RabbitMQ.",
    {"queue": values.QUEUES},
)
OBSERVED = OBSERVER.gauge(
    "rowlock_observer_last_success_timestamp_seconds",
    "seconds since 1970",
    "When the figures of this group were last taken; they are taken every 5 seconds.",
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
    "maps that could not be read in time, or 1 where Redis was away or the projector had stopped.",
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
