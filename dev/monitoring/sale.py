"""What the business sees."""

from dev.monitoring.expressions import CUSTOMERS, OUR_FAULT, REQUESTED, quantile, rate, worst
from dev.monitoring.panels import Dashboard, Panel, Row

HOLDS = 'operation="hold"'

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
                Panel("Live holds", "Reservations whose time to pay is running.", "short",
                      {"holds": worst("rowlock_held_reservations")}, width=4, now=True),
                Panel("Seats sold a second", "Seats that were paid for.", "ops",
                      {"seats": rate("rowlock_seats_total", matching='operation="pay"')}, width=4, now=True),
                Panel("Availability", "Share of customers' requests that did not fail by our fault; 409 is a proper "
                      "answer.", "percentunit",
                      # Where nothing has failed yet there is nothing to count.
                      {"share": "1 - ("
                       + rate("rowlock_http_request_duration_seconds_count", matching=f"{REQUESTED}, {OUR_FAULT}")
                       + " or vector(0)) / "
                       + rate("rowlock_http_request_duration_seconds_count", matching=REQUESTED)},
                      width=4, now=True),
                Panel("A hold takes (99 %)", "99 of 100 holds are answered within this time.", "s",
                      {"seconds": quantile(0.99, "rowlock_operation_duration_seconds", matching=HOLDS)},
                      width=4, now=True),
                Panel("Audit", "Broken rules that the last round of the self-audit found: must be 0.", "short",
                      {"violations": "sum (max by (check) (rowlock_audit_violations))"}, width=4, now=True),
            ],
        ),
        Row(
            "Seats and money",
            [
                Panel("Seats", "Seats held, sold and given back a second.", "ops",
                      {"{{operation}}": rate("rowlock_seats_total", "operation")}),
                Panel("Holds that ended unpaid", "By who ended them: the inbox punctually, the sweep, the next buyer.",
                      "ops", {"{{by}}": rate("rowlock_holds_expired_total", "by")}, stacked=True),
                Panel("Money", "Minor units of each currency a second.", "short",
                      {"{{currency}}": rate("rowlock_paid_minor_units_total", "currency")}),
            ],
        ),
        Row(
            "What customers are told",
            [
                Panel("Operations", "Holds, payments and releases by outcome.", "ops",
                      {"{{operation}} {{outcome}}":
                       rate("rowlock_operation_duration_seconds_count", "operation", "outcome", matching=CUSTOMERS)},
                      width=12),
                Panel("Refusals", "By reason. taken is the sale's nature; locked, busy and away are ours.", "ops",
                      {"{{reason}}": rate("rowlock_refusals_total", "reason")}, width=12, stacked=True),
                Panel("Time of a hold", "Request to answer.", "s",
                      {f"{share:g}": quantile(share, "rowlock_operation_duration_seconds", matching=HOLDS)
                       for share in (0.5, 0.95, 0.99)}),
                Panel("Time of a payment", "Request to answer.", "s",
                      {f"{share:g}": quantile(share, "rowlock_operation_duration_seconds", matching='operation="pay"')
                       for share in (0.5, 0.95, 0.99)}),
                Panel("Seat maps", "Maps given to requests, by source.", "ops",
                      {"{{source}}": rate("rowlock_seat_map_reads_total", "source")}, stacked=True),
            ],
        ),
    ],
)  # fmt: skip
