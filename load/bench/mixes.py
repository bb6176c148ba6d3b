"""Several kinds of request together, as customers send them."""

from collections.abc import Iterator
from itertools import cycle

from load.bench import ours
from load.bench.answers import Answers
from load.bench.generator import request
from load.bench.ground import SEATS_PER_SESSION, Ground, check
from load.bench.limits import hold_requests
from load.bench.measured import Timing
from load.bench.ours import MAPS, Setup, running
from tests.stage.factories import Account

MAPS_FOR_EACH_HOLD = 19
BROWSE_MARGIN = 2
"""Requests that are prepared, as a multiple of those that are expected."""

TRIES = 4


async def browse(ground: Ground, timing: Timing) -> dict[str, float]:
    """95 maps and 5 holds of 100 requests, beside what the capacities for each, measured just before, predict."""
    found: dict[str, float] = {}
    for all_on in (False, True):
        setup, suffix = Setup(all_on=all_on), ", all on" if all_on else ""
        maps = (await ours.maps(ground, timing, setup)).per_second
        holds = (await ours.holds(ground, timing, setup)).per_second
        share = 1 / (MAPS_FOR_EACH_HOLD + 1)
        predicted = 1 / ((1 - share) / maps + share / holds)
        holds_max = int(BROWSE_MARGIN * share * predicted * (timing.warm_up_seconds + timing.seconds))
        async with running(ground, setup) as system:
            answers = await system.send(_browsing(ground, holds_max), timing)
            await check(system.database_url, held=answers.total[201])
        if set(answers.total) != {200, 201}:
            raise RuntimeError(f"answers by status: {answers.total}")
        per_second = sum(answers.measured.values()) / answers.seconds
        found |= {
            f"maps a second at most{suffix}": maps,
            f"holds a second at most{suffix}": holds,
            f"maps and holds a second{suffix}": per_second,
            f"of the prediction{suffix}": per_second / predicted,
            f"p99 ms of a map{suffix}": answers.percentile_ms(0.99, 200),
            f"p99 ms of a hold{suffix}": answers.percentile_ms(0.99, 201),
        }
    return found


def _browsing(ground: Ground, holds_max: int) -> Iterator[bytes]:
    """Maps of the sessions in which seats are held meanwhile."""
    sessions = ground.sessions[: max(MAPS, -(-holds_max // SEATS_PER_SESSION))]
    seat_ids = [session.seat_ids[n] for n in range(SEATS_PER_SESSION) for session in sessions]
    buyers: list[tuple[Account, int]] = list(zip(cycle(ground.customers), seat_ids, strict=False))
    readers = cycle(zip(cycle(sessions), ground.customers, strict=False))
    for hold in hold_requests(buyers[:holds_max]):
        for session, customer in (next(readers) for _ in range(MAPS_FOR_EACH_HOLD)):
            yield request("GET", f"/customer/session/{session.id}", customer)
        yield hold


async def retry(ground: Ground, timing: Timing) -> dict[str, float]:
    """Each hold is sent four times at once, with one key, on different connections. All four get the same reply."""
    setup = Setup(all_on=True)
    plain = (await ours.holds(ground, timing, setup)).per_second
    async with running(ground, setup) as system:
        requests = (hold for hold in hold_requests(ground.buyers) for _ in range(TRIES))
        answers = await system.send(requests, timing)
        await system.catch_up()
        holds = _same_replies(answers)
        await check(system.database_url, held=holds)
    per_second = sum(answers.measured.values()) / answers.seconds
    return {
        "plain holds a second": plain,
        "answers a second": per_second,
        "holds a second": per_second / TRIES,
        "answers a second, of plain holds": per_second / plain,
        "p50 ms of an answer": answers.p50_ms,
        "p99 ms of an answer": answers.p99_ms,
    }


def _same_replies(answers: Answers) -> int:
    """The number of different holds. Raises RuntimeError where a hold was refused or its replies differ."""
    replies: dict[int, set[int]] = {}
    for number, body_hash in zip(answers.numbers, answers.body_hashes, strict=True):
        replies.setdefault(number // TRIES, set()).add(body_hash)
    if set(answers.total) != {201} or any(len(different) > 1 for different in replies.values()):
        raise RuntimeError(f"replies to one hold differ, or one was refused: {answers.total}")
    return len(replies)
