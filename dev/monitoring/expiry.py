"""Holds that end on time, and events on their way to RabbitMQ and Redis."""

from dev.monitoring.expressions import each, rate, slowest, spread, worst
from dev.monitoring.panels import Dashboard, Panel, Row

EXPIRY = Dashboard(
    uid="rowlock-expiry",
    title="Rowlock / Expiry and events",
    description="Are unpaid seats released on time? Do events reach RabbitMQ and Redis? Is the audit clean?",
    rows=[
        Row(
            "Expiry",
            [
                Panel("Lateness", "Time from the deadline to the end of the hold.", "s",
                      spread("rowlock_expiry_lateness_seconds")),
                Panel("Oldest overdue hold", "Time since its deadline; 0 without an overdue hold.", "s",
                      {"overdue": worst("rowlock_overdue_hold_oldest_seconds")}),
                Panel("Overdue and live holds", "live: neither paid nor ended, including overdue holds. Counted up to "
                      "10,000.", "short",
                      {"overdue": worst("rowlock_overdue_holds"), "live": worst("rowlock_held_reservations")}),
                Panel("Share by loop", "Of unpaid holds: normally the inbox ends most, and the sweep the rest.",
                      "percentunit", {"{{by}}": rate("rowlock_holds_expired_total", "by")
                                      + " / ignoring (by) group_left () " + rate("rowlock_holds_expired_total")}),
                Panel("Dead letters", "Letters that the inbox has finished. unreadable and failing: parked.", "ops",
                      {"{{outcome}}": rate("rowlock_dead_letters_total", "outcome"),
                       "pauses": rate("rowlock_inbox_pauses_total")}),
                Panel("Messages in RabbitMQ", "Hints of live holds, dead letters for the inbox, parked letters.",
                      "short",
                      each(worst, "rowlock_broker_messages", "queue")),
            ],
        ),
        Row(
            "Loops",
            [
                Panel("Since the last success", "A healthy loop succeeds every few seconds; keeper and queues "
                      "every 20 s.", "s",
                      {"{{loop}}": "time() - " + worst("rowlock_loop_last_success_timestamp_seconds", "loop"),
                       "observer's figures": "time() - " + worst("rowlock_observer_last_success_timestamp_seconds")}),
                Panel("Failed steps", "The loop continues after a failed step.", "ops",
                      each(rate, "rowlock_loop_failures_total", "loop")),
                Panel("A step takes (95 %)", "Includes empty steps.", "s",
                      each(slowest, "rowlock_loop_step_duration_seconds", "loop")),
            ],
        ),
        Row(
            "Log",
            [
                Panel("Lag", "Age of the oldest event that waits for a number (sequencer), RabbitMQ (relay) or "
                      "Redis (projector).", "s",
                      each(worst, "rowlock_log_lag_seconds", "reader")),
                Panel("Events that wait", "Events that wait for a number, RabbitMQ or Redis. stuck: kept beyond the "
                      "retention.", "short",
                      {"{{reader}}": worst("rowlock_log_lag_events", "reader"),
                       "stuck: {{reader}}": worst("rowlock_log_stuck_events", "reader")}),
                Panel("Published", "Events confirmed by RabbitMQ, batches refused or timed out, hints dropped.", "ops",
                      {"confirmed": rate("rowlock_events_published_total"),
                       "refused": rate("rowlock_events_refused_total"),
                       "timeouts": rate("rowlock_confirm_timeouts_total"),
                       "hints dropped": rate("rowlock_hints_dropped_total")}),
                Panel("A batch's confirms take (95 %)", "Time from the first message to the last confirm.", "s",
                      {"confirms": slowest("rowlock_confirm_wait_seconds")}),
                Panel("Events kept", "Numbered events in the log.", "short", {"events": worst("rowlock_log_events")}),
                Panel("Maps built in Redis", "abandoned: another process restarted it, or Redis went down.", "ops",
                      each(rate, "rowlock_seat_map_builds_total", "outcome")),
            ],
        ),
        Row(
            "Self-audit",
            [
                Panel("Violations", "Found by the last round, or already by the current one. Must be 0.", "short",
                      each(worst, "rowlock_audit_violations", "check")),
                Panel("Since the last round", "And the duration of that round.", "s",
                      {"since": "time() - " + worst("rowlock_audit_last_round_timestamp_seconds"),
                       "took": worst("rowlock_audit_round_duration_seconds")}),
                Panel("Rows checked", "And wrong maps that were removed from Redis.", "ops",
                      {"{{what}}": rate("rowlock_audit_checked_total", "what"),
                       "repairs": rate("rowlock_audit_repairs_total")}),
                Panel("Not checked", "Parts and maps that the last round could not check.", "short",
                      each(worst, "rowlock_audit_unlooked", "what")),
            ],
        ),
    ],
)  # fmt: skip
