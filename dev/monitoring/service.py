"""Rate, errors and duration of each route; use, saturation and errors of each pod."""

from dev.monitoring.expressions import OUR_FAULT, chosen, each, rate, slowest, worst
from dev.monitoring.panels import Dashboard, Panel, Row

REQUESTS = "rowlock_http_request_duration_seconds"
BUILD = "rowlock_build_info"
OURS = f" and on (instance) {chosen(BUILD)}"
"""Others in the same Prometheus show metrics of their processes by the same names."""

SERVICE = Dashboard(
    uid="rowlock-service",
    title="Rowlock / Service",
    description="Requests by route, and what each pod uses, waits for and fails at.",
    rows=[
        Row(
            "Requests",
            [
                Panel("Rate", "Requests by route.", "reqps",
                      each(rate, f"{REQUESTS}_count", "method", "route"), stacked=True),
                Panel("Outcomes", "409 is conflict; unavailable and failed are our fault.", "reqps",
                      each(rate, f"{REQUESTS}_count", "outcome"), stacked=True),
                Panel("Failures by route and pod", "What is our fault.", "reqps",
                      each(rate, f"{REQUESTS}_count", "route", "outcome", "instance", matching=OUR_FAULT)),
                Panel("Duration (95 %)", "By route.", "s",
                      each(slowest, REQUESTS, "method", "route")),
                Panel("In progress", "Requests and writes that are not answered yet, by pod.", "short",
                      {"requests {{instance}}": worst("rowlock_http_requests_in_progress", "instance"),
                       "writes {{instance}}": worst("rowlock_writes_in_progress", "instance")}),
                Panel("Limited", "Requests refused with 429, by the limit.", "reqps",
                      each(rate, "rowlock_rate_limited_total", "limit")),
                Panel("Age of maps (95 %)", "When they were given to requests, by source.", "s",
                      each(slowest, "rowlock_seat_map_age_seconds", "source")),
            ],
        ),
        Row(
            "Pods",
            [
                Panel("Pool in use", "Share of each pod's connections to PostgreSQL.", "percentunit",
                      {"{{instance}}": worst("rowlock_pool_connections_used", "instance") + " / "
                       + worst("rowlock_pool_size", "instance")}),
                Panel("Wait for a connection (95 %)", "By pod.", "s",
                      each(slowest, "rowlock_pool_wait_seconds", "instance")),
                Panel("Event loop lag (95 %)", "High: the pod wants more CPU than it has.", "s",
                      each(slowest, "rowlock_event_loop_lag_seconds", "instance")),
                Panel("Passwords", "Checks that wait or are at work, and sign-ins that are made to wait.", "short",
                      {"checks": f"sum ({chosen('rowlock_password_checks_waiting')})",
                       "delayed": f"sum ({chosen('rowlock_sign_ins_delayed')})"}),
                Panel("A password takes (95 %)", "The wait for the thread is in it.", "s",
                      {"check": slowest("rowlock_password_check_duration_seconds")}),
                Panel("Redis", "Calls without an answer in time, and whether it answered last (1 or 0).", "short",
                      {"errors {{instance}}": rate("rowlock_cache_errors_total", "instance"),
                       "up {{instance}}": f"min by (instance) ({chosen('rowlock_cache_up')})"}),
                Panel("CPU", "Seconds of CPU a second, by pod.", "short",
                      {"{{instance}}": rate("process_cpu_seconds_total", "instance") + OURS}),
                Panel("Memory", "Resident, by pod.", "bytes",
                      {"{{instance}}": worst("process_resident_memory_bytes", "instance") + OURS}),
                Panel("What runs", "Releases, and the schema that they need.", "short",
                      {"{{version}} schema {{schema}}": f"count by (version, schema) ({chosen(BUILD)})"}),
            ],
        ),
    ],
)  # fmt: skip
