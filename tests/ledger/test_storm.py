"""Half a minute of everything at once on forty seats: three API processes, three sweeps, and customers who hold, pay,
release, come too late and forget. The verdict is SQL, and every answer to a customer must match the database.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from dev.postgres import Postgres
from service.database import Connection
from service.settings import Settings
from tests.stage.crowd import (
    HOLD,
    HOLD_SECONDS,
    PAY,
    PROCESSES,
    RELEASE,
    Shopper,
    Storm,
    documented,
    enter_all,
    three_apis,
)
from tests.stage.factories import PRICE, Account, make_customers, make_session
from tests.stage.forcing import count_deadlocks
from tests.stage.processes import Process, expirer_process
from tests.stage.verdict import broken_rules
from tests.stage.waiting import until

AUDIT_SECONDS = 3
SEATS, SEATS_PER_CUSTOMER_MAX = 40, 6
CUSTOMERS, SHOPPERS_PER_CUSTOMER = 12, 2

HAPPENED_MIN = {
    (HOLD, "201"): 50,
    (HOLD, "409 seats-taken"): 50,
    (HOLD, "409 seat-limit-reached"): 1,
    (PAY, "200"): 3,
    (PAY, "409 hold-expired"): 3,
    (RELEASE, "200"): 20,
    (RELEASE, "409 hold-expired"): 3,
}
"""A tenth of what two cores do; without it there was no storm."""
EXPIRED_MIN = 20
BUSY_SHARE_MAX = 0.01
"""Of all answers; none on a machine that is not overloaded."""

SEATS_OVER_LIMIT = """
select customer_id, sum(cardinality(seat_ids))
from reservations
where state in ('HELD', 'CONFIRMED')
group by customer_id
having sum(cardinality(seat_ids)) > $1
"""


async def _rage(storm: Storm, sql: Connection, customers: Sequence[Account]) -> None:
    """The storm, and a check of all rules every few seconds during it."""
    shoppers = [Shopper(storm, customer) for customer in customers for _ in range(SHOPPERS_PER_CUSTOMER)]
    async with asyncio.TaskGroup() as group:
        shopping = {group.create_task(shopper.shop()) for shopper in shoppers}
        while shopping:
            _, shopping = await asyncio.wait(shopping, timeout=AUDIT_SECONDS)
            assert await broken_rules(sql) == {}
            assert await sql.fetch(SEATS_OVER_LIMIT, SEATS_PER_CUSTOMER_MAX) == []


async def _until_all_are_settled(sql: Connection) -> None:
    async def settled() -> bool:
        return not await sql.fetchval("select count(*) from reservations where state = 'HELD'")

    await until(settled, "the end of the last hold")


async def _assert_told_what_is_so(storm: Storm, sql: Connection) -> Counter[str]:
    """Every answer is what the database has, and it has nothing else; returns the reservations' states."""
    rows = {row["id"]: row for row in await sql.fetch("select * from reservations")}
    assert rows.keys() == storm.holds.keys()
    for id_, row in rows.items():
        held: dict[str, Any] = json.loads(storm.holds[id_])
        assert row["reply"].encode() == storm.holds[id_]
        assert row["seat_ids"] == sorted(seat["seatId"] for seat in held["seats"])
        assert row["total"] == held["total"] == PRICE * len(held["seats"])
        # Who was told nothing has neither paid nor released it.
        assert storm.ends.get(id_, {"EXPIRED"}) == {row["state"]}
        assert storm.settled_at.get(id_, row["settled_at"]) == row["settled_at"]
    return Counter(row["state"] for row in rows.values())


def _assert_exercised(counts: Counter[tuple[str, str]], routes: dict[str, set[str]]) -> None:
    """Everything happened often enough, and nothing that is not documented, nor what says nothing."""
    assert [(route, told) for route, told in counts if told not in routes[route]] == []
    assert {which: counts[which] for which, least in HAPPENED_MIN.items() if counts[which] < least} == {}
    unavailable = {which: count for which, count in counts.items() if which[1].startswith("503")}
    assert {told for _, told in unavailable} <= {"503 busy"}
    assert sum(unavailable.values()) <= BUSY_SHARE_MAX * counts.total(), unavailable


def _swept(expirer: Process) -> int:
    """How many holds this one has ended, by its log."""
    lines = [json.loads(line) for line in expirer.output().splitlines()]
    return sum(line["count"] for line in lines if line["event"] == "holds expired")


async def test_storm_sells_no_seat_twice_and_every_answer_is_true(
    postgres: Postgres, sql: Connection, settings: Settings
) -> None:
    deadlocks_before = await count_deadlocks(sql)
    customers = await make_customers(sql, settings, CUSTOMERS)
    seat_ids = (await make_session(sql, settings, SEATS)).seat_ids
    rules = {"hold_seconds": HOLD_SECONDS, "seats_per_customer_max": SEATS_PER_CUSTOMER_MAX}
    async with AsyncExitStack() as stack:
        apis = await stack.enter_async_context(three_apis(postgres.url(), **rules))
        sweep = {"sweep_interval_ms": 200, "log_level": "info"}
        expirers = await enter_all(stack, [expirer_process(postgres.url(), **sweep) for _ in range(PROCESSES)])
        routes = await documented(apis[0])
        storm = Storm(apis, seat_ids)
        await _rage(storm, sql, customers)
        await _until_all_are_settled(sql)
        assert 0 not in {_swept(expirer) for expirer in expirers}, "each of the sweeps had its share"
    _assert_exercised(storm.counts, routes)
    states = await _assert_told_what_is_so(storm, sql)
    assert states["EXPIRED"] >= EXPIRED_MIN
    assert await sql.fetchval("select count(*) from seats where state = 'SOLD'") == storm.sold
    assert await count_deadlocks(sql) == deadlocks_before
