"""Holds that end on time, and the log's way to RabbitMQ and Redis."""

from dev.monitoring.expressions import each, rate, slowest, spread, worst
from dev.monitoring.panels import Dashboard, Panel, Row

EXPIRY = Dashboard(
    uid="rowlock-expiry",
    title="Rowlock / Expiry and events",
    description="Are unpaid seats given back on time? Do events reach RabbitMQ and Redis? Is the audit clean?",
    rows=[
        Row(
            "Expiry",
            [
                Panel("Lateness", "From the deadline to the end of the hold.", "s",
                      spread("rowlock_expiry_lateness_seconds")),
                Panel("Oldest overdue hold", "How long it is overdue; 0 without one.", "s",
                      {"overdue": worst("rowlock_overdue_hold_oldest_seconds")}),
                Panel("Overdue and live holds", "Each counted up to 10,000. live: neither paid nor ended, overdue ones "
                      "among them.", "short",
                      {"overdue": worst("rowlock_overdue_holds"), "live": worst("rowlock_held_reservations")}),
                Panel("Share of each", "Of unpaid holds: the dead letters end most, the sweep has the rest.",
                      "percentunit", {"{{by}}": rate("rowlock_holds_expired_total", "by")
                                      + " / ignoring (by) group_left () " + rate("rowlock_holds_expired_total")}),
                Panel("Dead letters", "What the inbox is done with; unreadable and failing ones were parked.", "ops",
                      {"{{outcome}}": rate("rowlock_dead_letters_total", "outcome"),
                       "pauses": rate("rowlock_inbox_pauses_total")}),
                Panel("Messages in RabbitMQ", "Hints of live holds, dead letters for the inbox, parked ones.", "short",
                      each(worst, "rowlock_broker_messages", "queue")),
            ],
        ),
        Row(
            "Loops",
            [
                Panel("Since the last success", "A loop that goes on succeeds every few seconds; keeper and queues "
                      "pause for 20 s.", "s",
                      {"{{loop}}": "time() - " + worst("rowlock_loop_last_success_timestamp_seconds", "loop"),
                       "observer's figures": "time() - " + worst("rowlock_observer_last_success_timestamp_seconds")}),
                Panel("Failed steps", "The loop goes on after one.", "ops",
                      each(rate, "rowlock_loop_failures_total", "loop")),
                Panel("A step takes (95 %)", "Empty steps too.", "s",
                      each(slowest, "rowlock_loop_step_duration_seconds", "loop")),
            ],
        ),
        Row(
            "Log",
            [
                Panel("Lag", "Age of the first event that waits for its number, RabbitMQ or Redis.", "s",
                      each(worst, "rowlock_log_lag_seconds", "reader")),
                Panel("Events that wait", "For their number, RabbitMQ or Redis.", "short",
                      {"{{reader}}": worst("rowlock_log_lag_events", "reader"),
                       "stuck: {{reader}}": worst("rowlock_log_stuck_events", "reader")}),
                Panel("Published", "Confirmed by RabbitMQ; refused is in batches, dropped is hints.", "ops",
                      {"confirmed": rate("rowlock_events_published_total"),
                       "refused": rate("rowlock_events_refused_total"),
                       "timeouts": rate("rowlock_confirm_timeouts_total"),
                       "hints dropped": rate("rowlock_hints_dropped_total")}),
                Panel("A batch's confirms take (95 %)", "From the first message to the last confirm.", "s",
                      {"confirms": slowest("rowlock_confirm_wait_seconds")}),
                Panel("Events kept", "Numbered events in the log.", "short", {"events": worst("rowlock_log_events")}),
                Panel("Maps built in Redis", "abandoned: begun anew by somebody else, or Redis went away.", "ops",
                      each(rate, "rowlock_seat_map_builds_total", "outcome")),
            ],
        ),
        Row(
            "Self-audit",
            [
                Panel("Violations", "What the last round found, or this one already, by check: must be 0.", "short",
                      each(worst, "rowlock_audit_violations", "check")),
                Panel("Since the last round", "And how long that one took.", "s",
                      {"since": "time() - " + worst("rowlock_audit_last_round_timestamp_seconds"),
                       "took": worst("rowlock_audit_round_duration_seconds")}),
                Panel("Rows looked at", "And maps that were thrown out of Redis because they were wrong.", "ops",
                      {"{{what}}": rate("rowlock_audit_checked_total", "what"),
                       "repairs": rate("rowlock_audit_repairs_total")}),
                Panel("Not looked at", "What the last round knows nothing of.", "short",
                      each(worst, "rowlock_audit_unlooked", "what")),
            ],
        ),
    ],
)  # fmt: skip
