"""What the business sees."""

from dev.monitoring.expressions import CUSTOMERS, OUR_FAULT, REQUESTED, each, quantile, rate, spread, worst
from dev.monitoring.panels import Dashboard, Panel, Row

OPERATIONS = "rowlock_operation_duration_seconds"
REQUESTS = "rowlock_http_request_duration_seconds_count"
HOLDS, PAYMENTS = 'operation="hold"', 'operation="pay"'

SALE = Dashboard(
    uid="rowlock-sale",
    title="Rowlock / Sale",
    description="Is the sale healthy? What is sold, what customers are told, and how long they wait.",
    rows=[
        Row(
            "Now",
            [
                Panel("Sessions on sale", "Sessions before their showtime.", "short",
                      {"sessions": worst("rowlock_sessions_on_sale")}, width=4, now=True),
                Panel("Live holds", "Neither paid nor ended; counted up to 10,000.", "short",
                      {"holds": worst("rowlock_held_reservations")}, width=4, now=True),
                Panel("Seats sold a second", "Seats that were paid for.", "ops",
                      {"seats": rate("rowlock_seats_total", matching=PAYMENTS)}, width=4, now=True),
                Panel("Availability", "Share of customers' requests that did not fail by our fault; 409 is a proper "
                      "answer.", "percentunit",
                      {"share": "1 - "
                       + rate(REQUESTS, matching=f"{REQUESTED}, {OUR_FAULT}")
                       + " / "
                       + rate(REQUESTS, matching=REQUESTED)},
                      width=4, now=True),
                Panel("A hold takes (99 %)", "99 of 100 holds are decided within this time, once let in.", "s",
                      {"seconds": quantile(0.99, OPERATIONS, matching=HOLDS)},
                      width=4, now=True),
                Panel("Audit", "Violations that the self-audit has found, of all its rules: must be 0.", "short",
                      # What no round has looked at is NaN, and so would be the sum.
                      {"violations": f"sum ({worst('rowlock_audit_violations', 'namespace', 'check')} >= 0)"},
                      width=4, now=True),
            ],
        ),
        Row(
            "Seats and money",
            [
                Panel("Seats", "Seats held, sold and given back a second.", "ops",
                      each(rate, "rowlock_seats_total", "operation")),
                Panel("Holds that ended unpaid", "By who ended them: the inbox punctually, the sweep, the next buyer.",
                      "ops", each(rate, "rowlock_holds_expired_total", "by"), stacked=True),
                Panel("Money", "Minor units of each currency a second.", "short",
                      each(rate, "rowlock_paid_minor_units_total", "currency")),
            ],
        ),
        Row(
            "What customers are told",
            [
                Panel("Operations", "Holds, payments and releases by outcome.", "ops",
                      each(rate, f"{OPERATIONS}_count", "operation", "outcome", matching=CUSTOMERS),
                      width=12),
                Panel("Refusals", "By reason. taken is the sale's nature; locked, busy and away are ours.", "ops",
                      each(rate, "rowlock_refusals_total", "reason"), width=12, stacked=True),
                Panel("Time of a hold", "Without sign-in check, limits and body, which come first.", "s",
                      spread(OPERATIONS, matching=HOLDS)),
                Panel("Time of a payment", "Without sign-in check, limits and body, which come first.", "s",
                      spread(OPERATIONS, matching=PAYMENTS)),
                Panel("Seat maps", "Maps given to requests, by source.", "ops",
                      each(rate, "rowlock_seat_map_reads_total", "source"), stacked=True),
            ],
        ),
    ],
)  # fmt: skip
