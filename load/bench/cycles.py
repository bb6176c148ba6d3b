"""The end of holds: of ten one is paid, four are released, and five run out."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from uuid import UUID

import asyncpg
import psutil

from load.bench import ours
from load.bench.answers import Answers
from load.bench.generator import request
from load.bench.ground import Ground, check
from load.bench.limits import hold_requests, key_of
from load.bench.measured import Timing
from load.bench.ours import Setup, System, running
from service.database import Connection
from tests.stage.factories import Account
from tests.stage.waiting import until

SEGMENT_SECONDS = 15
HOLD_SECONDS = 3 * SEGMENT_SECONDS
"""The holds of a segment are paid and released in the next one, long before they run out."""
CYCLE_SEGMENTS = 4
SOAK_SECONDS_MAX, SOAK_SECONDS_FOR_EACH = 1_800, 300
PAID, RELEASED, OF = 1, 4, 10
END_SECONDS_MAX = 60

Buyer = tuple[Account, int]

HELD_BY_KEY = """
select idempotency_key, id
from reservations
where idempotency_key = any($1::text[])
"""

IS_ANY_HELD = """
select exists (select from reservations where state = 'HELD')
"""

SIZES = """
select pg_total_relation_size('seats') as seats,
    pg_total_relation_size('reservations') / greatest(count(*), 1)::float as reservation
from reservations
"""


@dataclass(slots=True)
class Sale:
    """The seats that are free in the order of their use, the holds of the last segment, and the answers so far."""

    free: deque[Buyer]
    last: list[Buyer] = field(default_factory=list)
    sent: int = 0
    held: int = 0
    paid: int = 0
    released: int = 0


@dataclass(frozen=True, slots=True)
class Segment:
    """The figures of a segment: rates a second, milliseconds, mebibytes and bytes."""

    per_second: float
    p99_ms: float
    api_mib: float
    expirer_mib: float
    seats_mib: float
    reservation_bytes: float


async def cycle(ground: Ground, timing: Timing) -> dict[str, float]:
    """A minute of it."""
    return await _cycles(ground, timing, CYCLE_SEGMENTS)


async def soak(ground: Ground, timing: Timing) -> dict[str, float]:
    """Half an hour of it, less with few SECONDS. The last segments are compared with the first ones."""
    seconds = min(SOAK_SECONDS_MAX, SOAK_SECONDS_FOR_EACH * timing.seconds)
    return await _cycles(ground, timing, max(CYCLE_SEGMENTS, round(seconds / SEGMENT_SECONDS)))


async def _cycles(ground: Ground, timing: Timing, count: int) -> dict[str, float]:
    """Requests at half of the capacity for holds, with everything on."""
    setup = Setup(all_on=True)
    capacity = (await ours.holds(ground, timing, setup)).per_second
    async with running(ground, setup, hold_seconds=HOLD_SECONDS) as system:
        sale = Sale(deque(ground.buyers))
        sql = await asyncpg.connect(system.database_url)
        # The first segment has no holds to settle, and warms up.
        segments = [await _segment(system, sql, sale, capacity / 2) for _ in range(count + 1)][1:]

        async def is_over() -> bool:
            return not await sql.fetchval(IS_ANY_HELD)

        await until(is_over, "all holds ended", HOLD_SECONDS + END_SECONDS_MAX)
        await sql.close()
        expired = sale.held - sale.paid - sale.released
        await check(system.database_url, sale.held, sale.paid, sale.released, expired)
    return {"holds a second at most": capacity, "minutes": count * SEGMENT_SECONDS / 60, **_compared(segments)}


def _compared(segments: Sequence[Segment]) -> dict[str, float]:
    tenth = max(1, len(segments) // 10)
    found: dict[str, float] = {}
    for name, what in (
        ("per_second", "requests a second"), ("p99_ms", "p99 ms"), ("api_mib", "MiB of the API"),
        ("expirer_mib", "MiB of the expirer"), ("seats_mib", "MiB of the seats"),
        ("reservation_bytes", "bytes of a reservation"),
    ):  # fmt: skip
        values = [getattr(segment, name) for segment in segments]
        first, last = sum(values[:tenth]) / tenth, sum(values[-tenth:]) / tenth
        found |= {f"{what}, first tenth": first, f"{what}, last tenth": last, f"{what}, last of first": last / first}
    return found


async def _segment(system: System, sql: Connection, sale: Sale, rate: float) -> Segment:
    holds = int(rate * SEGMENT_SECONDS / (1 + (PAID + RELEASED) / OF))
    settling = await _settling(sql, sale)
    buyers = [sale.free.popleft() for _ in range(holds)]
    held_before, sale.last = sale.sent, buyers
    requests = list(_interleaved(list(hold_requests(buyers, held_before)), settling))
    sale.sent += holds
    answers = await system.send(requests, Timing(0, SEGMENT_SECONDS), rate=len(requests) / SEGMENT_SECONDS)
    _count(sale, answers)
    sizes = await sql.fetchrow(SIZES)
    assert sizes
    api, expirer = (_mib(system.parts[part]) for part in ("API", "expirer"))
    per_second = len(requests) / max(answers.until)
    return Segment(per_second, answers.p99_ms, api, expirer, sizes["seats"] / 2**20, sizes["reservation"])


async def _settling(sql: Connection, sale: Sale) -> list[bytes]:
    """Payments and releases of the last segment's holds. Seats that are not sold are free again, long after."""
    first = sale.sent - len(sale.last)
    rows = await sql.fetch(HELD_BY_KEY, [key_of(n) for n in range(first, sale.sent)])
    ids: dict[str, UUID] = {row["idempotency_key"]: row["id"] for row in rows}
    requests = []
    for n, (customer, seat_id) in enumerate(sale.last):
        id_, turn = ids[key_of(first + n)], n % OF
        if turn < PAID:
            requests.append(request("PUT", f"/customer/pay/{id_}", customer))
            sale.paid += 1
            continue
        sale.free.append((customer, seat_id))
        if turn < PAID + RELEASED:
            requests.append(request("DELETE", f"/customer/reservation/{id_}", customer))
            sale.released += 1
    return requests


def _interleaved(holds: Sequence[bytes], settling: Sequence[bytes]) -> Iterator[bytes]:
    """Two holds, then a payment or release."""
    others = iter(settling)
    for n, hold in enumerate(holds):
        yield hold
        if n % 2:
            yield from islice(others, 1)
    yield from others


def _count(sale: Sale, answers: Answers) -> None:
    """Raises RuntimeError where a request was refused: each seat is free, and each hold is in time."""
    if set(answers.total) - {200, 201}:
        raise RuntimeError(f"answers by status: {answers.total}")
    sale.held += answers.total[201]


def _mib(process_ids: Sequence[int]) -> float:
    """The resident memory of the processes and their children."""
    found = [psutil.Process(id_) for id_ in process_ids]
    found += [child for process in found for child in process.children(recursive=True)]
    return float(sum(process.memory_info().rss for process in found)) / 2**20
