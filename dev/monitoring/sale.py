"""The sale as the business sees it."""

from dev.monitoring.expressions import CUSTOMERS, OUR_FAULT, REQUESTED, each, quantile, rate, spread, worst
from dev.monitoring.panels import Dashboard, Panel, Row

OPERATIONS = "rowlock_operation_duration_seconds"
REQUESTS = "rowlock_http_request_duration_seconds_count"
HOLDS, PAYMENTS = 'operation="hold"', 'operation="pay"'

SALE = Dashboard(
    uid="rowlock-sale",
    title="Rowlock / Sale",
    description="Is the sale healthy? Sold seats, answers to customers, and waiting times.",
    rows=[
        Row(
            "Now",
            [
                Panel("Sessions on sale", "Sessions before their showtime.", "short",
                      {"sessions": worst("rowlock_sessions_on_sale")}, width=4, now=True),
                Panel("Live holds", "Holds that are neither paid nor ended; counted up to 10,000.", "short",
                      {"holds": worst("rowlock_held_reservations")}, width=4, now=True),
                Panel("Seats sold per second", "Paid seats.", "ops",
                      {"seats": rate("rowlock_seats_total", matching=PAYMENTS)}, width=4, now=True),
                Panel("Availability", "Share of customers' requests that did not fail with a 5xx. 409 is a correct "
                      "answer.", "percentunit",
                      {"share": "1 - "
                       + rate(REQUESTS, matching=f"{REQUESTED}, {OUR_FAULT}")
                       + " / "
                       + rate(REQUESTS, matching=REQUESTED)},
                      width=4, now=True),
                Panel("A hold takes (99 %)", "99 of 100 holds are answered within this time after admission.", "s",
                      {"seconds": quantile(0.99, OPERATIONS, matching=HOLDS)},
                      width=4, now=True),
                Panel("Audit", "Violations that the self-audit has found. Must be 0.", "short",
                      # A check without a finished round is NaN, and would make the sum NaN.
                      {"violations": f"sum ({worst('rowlock_audit_violations', 'namespace', 'check')} >= 0)"},
                      width=4, now=True),
            ],
        ),
        Row(
            "Seats and money",
            [
                Panel("Seats", "Seats held, sold and released per second.", "ops",
                      each(rate, "rowlock_seats_total", "operation")),
                Panel("Holds that ended unpaid",
                      "By the part that ended them: the inbox (on time), the sweep, the next buyer.",
                      "ops", each(rate, "rowlock_holds_expired_total", "by"), stacked=True),
                Panel("Money", "Minor units (such as cents) per second, by currency.", "short",
                      each(rate, "rowlock_paid_minor_units_total", "currency")),
            ],
        ),
        Row(
            "Answers to customers",
            [
                Panel("Operations", "Holds, payments and releases by outcome.", "ops",
                      each(rate, f"{OPERATIONS}_count", "operation", "outcome", matching=CUSTOMERS),
                      width=12),
                Panel("Refusals", "By reason. taken is normal in a sale; locked, busy and away are faults.", "ops",
                      each(rate, "rowlock_refusals_total", "reason"), width=12, stacked=True),
                Panel("Time of a hold", "Without the token check, rate limits and the body, which come first.",
                      "s",
                      spread(OPERATIONS, matching=HOLDS)),
                Panel("Time of a payment", "Without the token check, rate limits and the body, which come first.",
                      "s",
                      spread(OPERATIONS, matching=PAYMENTS)),
                Panel("Seat maps", "Maps sent to clients, by source.", "ops",
                      each(rate, "rowlock_seat_map_reads_total", "source"), stacked=True),
            ],
        ),
    ],
)  # fmt: skip
