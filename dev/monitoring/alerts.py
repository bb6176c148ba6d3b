"""Every alert: its expression, how long that must hold, its urgency and its runbook.

A length of time is written `[5m]` in a range and `SECONDS(60)` as a number, so that `rules.py` can shorten all of
them by one factor. The windows and burn rates are those of the SRE workbook, for a budget of 30 days.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from dev.monitoring.expressions import CUSTOMERS, OUR_FAULT, REQUESTED
from service.observability.metrics import catalogue

Severity = Literal["page", "ticket"]


@dataclass(frozen=True, slots=True)
class Alert:
    """`page` is the file in docs/runbooks without `.md`; `lasting` is Prometheus's `for`. The rule appends the
    namespace to the summary.
    """

    name: str
    page: str
    severity: Severity
    lasting: str
    summary: str
    expression: str


FAST = ((14.4, "1h", "5m"), (6, "6h", "30m"))
SLOW = ((3, "1d", "2h"), (1, "3d", "6h"))
"""Burn rate, long window, short window: the long one shows that it matters, the short one that it continues."""
HTTP = f"{catalogue.HTTP_SECONDS.name}_count"
OPERATION = catalogue.OPERATION_SECONDS.name
LATENESS = catalogue.LATENESS_SECONDS.name


def availability(window: str) -> str:
    """Share of customers' requests that failed with a 5xx: 409 and the other 4xx are correct answers."""
    bad = f"sum by (namespace) (rate({HTTP}{{{REQUESTED}, {OUR_FAULT}}}[{window}]))"
    return f"{bad} / sum by (namespace) (rate({HTTP}{{{REQUESTED}}}[{window}]))"


def slowness(window: str) -> str:
    """Share of holds, payments and releases that took more than half a second."""
    good = f'sum by (namespace) (rate({OPERATION}_bucket{{{CUSTOMERS}, le="0.5"}}[{window}]))'
    return f"1 - {good} / sum by (namespace) (rate({OPERATION}_count{{{CUSTOMERS}}}[{window}]))"


def lateness(window: str) -> str:
    """Share of unpaid holds that ended more than two seconds after their deadline."""
    good = f'sum by (namespace) (rate({LATENESS}_bucket{{le="2.0"}}[{window}]))'
    return f"1 - {good} / sum by (namespace) (rate({LATENESS}_count[{window}]))"


PROGRESS = catalogue.STEP_FINISHED.name
WATCHED = ("sweep", "sequencer", "observer")
"""Loops without which seats are released late, or metrics that other alerts need are not updated."""
ALL_BEGUN = " and on (namespace) ".join(f'{PROGRESS}{{loop="{loop}"}}' for loop in WATCHED)
"""Namespaces where each of them has finished a step since its process started."""
ANYWHERE = 'namespace=~".*"'
"""The chart replaces it with the release's namespace: `absent` has no series to take one from."""


def _missing(series: str) -> str:
    """A release that runs without the series, or does not run at all."""
    return (
        f"count by (namespace) (rowlock_build_info) unless on (namespace) {series}\n"
        f"or\nabsent(rowlock_build_info{{{ANYWHERE}}})"
    )


FINISHED = f"max by (namespace) ({catalogue.AUDIT_FINISHED.name})"
UNLOOKED = catalogue.AUDIT_UNLOOKED.name
WHOLE = f"max_over_time(({FINISHED} unless on (namespace) max by (namespace) ({UNLOOKED}) > 0)[3d:5m])"
"""When the last round ended that could check everything. Rounds may be a day apart. A subquery every five minutes may
miss a short round, but there are many of those in the hour for which the alert waits.
"""


ASKED, READY = 'route="/readyz"', 'route="/readyz", outcome="ok"'
"""Answers of the API to the clients that poll its readiness."""


def _going_on(answers: str) -> str:
    return f"sum by (namespace) (rate({HTTP}{{{answers}}}[2m])) > 0"


OFTEN = f"sum by (namespace) (rate({HTTP}{{{ASKED}}}[1h])) > 0.01 and on (namespace) {HTTP}{{{ASKED}}}"
"""A running API had at least 37 such requests in the last hour: from a client that polls, more often than the range of
`_going_on`, and not from a person who tries it now and then.
"""
SEEN = f"count_over_time({HTTP}{{{ASKED}}}[2m]) > 1"
"""`rate` has no value before Prometheus has scraped twice, such as after its own pause."""


MIGRATION = 'job_name=~"rowlock-migrate-.*"'
"""The Jobs of a release called rowlock in any namespace: the chart replaces it with its own name and namespace."""


def _burning(name: str, page: str, fault: str, budget: float, share: Callable[[str], str]) -> list[Alert]:
    """Two alerts on the share of bad events: one pages at once, one can wait for the next working day."""
    return [
        Alert(
            f"Rowlock{name}{speed}",
            page,
            severity,
            "0s",
            f"{fault}: at this rate the error budget of 30 days lasts {pace}",
            "\nor\n".join(
                f"({share(long)} > {rate * budget:g} and {share(short)} > {rate * budget:g})"
                for rate, long, short in windows
            ),
        )
        for speed, severity, pace, windows in _PACES
    ]


_PACES: Sequence[tuple[str, Severity, str, Sequence[tuple[float, str, str]]]] = (
    ("BurnsFast", "page", "less than five days", FAST),
    ("BurnsSlowly", "ticket", "less than 30 days", SLOW),
)

ALERTS = [
    *_burning("Availability", "availability", "Requests fail", 0.001, availability),
    *_burning("Latency", "latency", "Holds, payments or releases take more than half a second", 0.01, slowness),
    *_burning("Expiry", "expiry-lateness", "Unpaid seats are released more than two seconds late", 0.01, lateness),
    Alert(
        "RowlockApiNotServing",
        "api-not-serving",
        "page",
        "1m",
        "No API pod is ready: customers can't buy",
        # The proxy refuses requests then, so no pod counts failures. Without a client that polls readiness, the second
        # and third part stay silent. A blocked API counts no answers, but still exports its metrics.
        f"{_missing(HTTP)}\nor\n({_going_on(ASKED)} unless on (namespace) {_going_on(READY)})"
        f"\nor\n({OFTEN} and on (namespace) {SEEN} unless on (namespace) {_going_on(ASKED)})",
    ),
    Alert(
        "RowlockOverdueHold",
        "overdue-hold",
        "page",
        "1m",
        "The oldest hold is overdue by {{ $value | humanizeDuration }}",
        "max by (namespace) (rowlock_overdue_hold_oldest_seconds) > SECONDS(10)",
    ),
    Alert(
        "RowlockExpirerNotProgressing",
        "expirer-not-progressing",
        "page",
        "1m",
        "No expirer makes progress",
        # A loop that never finished a step has no series: without the second part no alert would fire.
        f'time() - max by (namespace, loop) ({PROGRESS}{{loop=~"{"|".join(WATCHED)}"}}) > SECONDS(60)\n'
        f"or\n{_missing(f'({ALL_BEGUN})')}",
    ),
    Alert(
        "RowlockRelayLag",
        "relay-lag",
        "ticket",
        "2m",
        "Events have waited for RabbitMQ for {{ $value | humanizeDuration }}",
        'max by (namespace) (rowlock_log_lag_seconds{reader="relay"}) > SECONDS(60)',
    ),
    Alert(
        "RowlockCacheBehind",
        "cache-behind",
        "ticket",
        "2m",
        "Redis is down, or its seat maps are behind PostgreSQL",
        'max by (namespace) (rowlock_log_lag_seconds{reader="projector"}) > SECONDS(30)\n'
        "or\nmin by (namespace) (rowlock_cache_up) == 0",
    ),
    Alert(
        "RowlockParkedMessages",
        "parked-messages",
        "ticket",
        "1m",
        "Parked dead letters: {{ $value }}",
        'max by (namespace) (rowlock_broker_messages{queue="parked"}) > 0',
    ),
    Alert(
        "RowlockLockWaits",
        "lock-waits",
        "page",
        "2m",
        "Waits for row locks time out",
        'sum by (namespace) (rate(rowlock_database_errors_total{error="lock_timeout"}[5m])) > 0.1',
    ),
    Alert(
        "RowlockOldWriteTransaction",
        "old-write-transaction",
        "ticket",
        "1m",
        "A transaction that wrote has been open for {{ $value | humanizeDuration }}",
        "max by (namespace) (rowlock_write_transaction_oldest_seconds) > SECONDS(60)",
    ),
    Alert(
        "RowlockDeadlocks",
        "deadlocks",
        "ticket",
        "0s",
        "PostgreSQL ended a deadlock: another program locks rows too",
        'sum by (namespace) (increase(rowlock_database_errors_total{error="deadlock"}[1h])) > 0',
    ),
    Alert(
        "RowlockAuditFailed",
        "audit-failed",
        "page",
        "0s",
        "The self-audit found violations of the rule {{ $labels.check }}: {{ $value }}",
        "max by (namespace, check) (rowlock_audit_violations) > 0",
    ),
    Alert(
        "RowlockAuditStale",
        "audit-stale",
        "ticket",
        "5m",
        "The self-audit has not finished a round for more than an hour",
        "time() - max by (namespace) (rowlock_audit_last_round_timestamp_seconds > 0)"
        " > SECONDS(3600) + max by (namespace) (rowlock_audit_interval_seconds)\n"
        f"or\n{_missing('(rowlock_audit_last_round_timestamp_seconds > 0)')}",
    ),
    Alert(
        "RowlockAuditIncomplete",
        "audit-incomplete",
        "ticket",
        "1h",
        "The self-audit could not check some {{ $labels.what }} in several rounds",
        # A result is shown until the next round ends, which may take more than an hour. So a second incomplete round
        # since the last complete one is needed too. If no complete round is known, the hour is enough.
        f"max by (namespace, what) ({UNLOOKED}) > 0\n"
        f"unless on (namespace)\n{FINISHED} < {WHOLE}"
        " + 1.5 * max by (namespace) (rowlock_audit_interval_seconds + rowlock_audit_round_duration_seconds)",
    ),
    Alert(
        "RowlockMigrationFailed",
        "migration-failed",
        "page",
        "0s",
        "The migration of the schema has failed: new pods wait for it",
        f'max by (namespace, job_name) (kube_job_failed{{condition="true", {MIGRATION}}}) > 0',
    ),
]
