"""Rate, errors and duration of each route; utilisation, saturation and errors of each pod."""

from dev.monitoring.expressions import OUR_FAULT, chosen, each, rate, slowest, worst
from dev.monitoring.panels import Dashboard, Panel, Row

REQUESTS = "rowlock_http_request_duration_seconds"
BUILD = "rowlock_build_info"
OURS = f" and on (instance) {chosen(BUILD)}"
"""Other programs in the same Prometheus have process metrics with the same names."""

SERVICE = Dashboard(
    uid="rowlock-service",
    title="Rowlock / Service",
    description="Requests by route; resources, waits and failures of each pod.",
    rows=[
        Row(
            "Requests",
            [
                Panel("Rate", "Requests by route.", "reqps",
                      each(rate, f"{REQUESTS}_count", "method", "route"), stacked=True),
                Panel("Outcomes", "conflict is 409; unavailable is 503; failed is any other 5xx.", "reqps",
                      each(rate, f"{REQUESTS}_count", "outcome"), stacked=True),
                Panel("Failures by route and pod", "Answers with 503 or another 5xx.", "reqps",
                      each(rate, f"{REQUESTS}_count", "route", "outcome", "instance", matching=OUR_FAULT)),
                Panel("Duration (95 %)", "By route.", "s",
                      each(slowest, REQUESTS, "method", "route")),
                Panel("In progress", "Requests and writes that wait for their answer, by pod.", "short",
                      {"requests {{instance}}": worst("rowlock_http_requests_in_progress", "instance"),
                       "writes {{instance}}": worst("rowlock_writes_in_progress", "instance")}),
                Panel("Limited", "Requests refused with 429, by limit.", "reqps",
                      each(rate, "rowlock_rate_limited_total", "limit")),
                Panel("Age of maps (95 %)", "Age when they are sent to clients, by source.", "s",
                      each(slowest, "rowlock_seat_map_age_seconds", "source")),
            ],
        ),
        Row(
            "Pods",
            [
                Panel("Pool in use", "Share of each pod's connections to PostgreSQL that is in use.", "percentunit",
                      {"{{instance}}": worst("rowlock_pool_connections_used", "instance") + " / "
                       + worst("rowlock_pool_size", "instance")}),
                Panel("Wait for a connection (95 %)", "By pod.", "s",
                      each(slowest, "rowlock_pool_wait_seconds", "instance")),
                Panel("Event loop lag (95 %)", "A high value: the pod needs more CPU.", "s",
                      each(slowest, "rowlock_event_loop_lag_seconds", "instance")),
                Panel("Passwords", "Checks that wait or run, and sign-ins that are delayed.", "short",
                      {"checks": f"sum ({chosen('rowlock_password_checks_waiting')})",
                       "delayed": f"sum ({chosen('rowlock_sign_ins_delayed')})"}),
                Panel("A password takes (95 %)", "Includes the wait for a thread.", "s",
                      {"check": slowest("rowlock_password_check_duration_seconds")}),
                Panel("Redis", "Calls that timed out, and whether the last call was answered (1 or 0).", "short",
                      {"errors {{instance}}": rate("rowlock_cache_errors_total", "instance"),
                       "up {{instance}}": f"min by (instance) ({chosen('rowlock_cache_up')})"}),
                Panel("CPU", "CPU cores in use, by pod.", "short",
                      {"{{instance}}": rate("process_cpu_seconds_total", "instance") + OURS}),
                Panel("Memory", "Resident memory, by pod.", "bytes",
                      {"{{instance}}": worst("process_resident_memory_bytes", "instance") + OURS}),
                Panel("Running versions", "Processes by release and the schema that it needs.", "short",
                      {"{{version}} schema {{schema}}": f"count by (version, schema) ({chosen(BUILD)})"}),
            ],
        ),
    ],
)  # fmt: skip
