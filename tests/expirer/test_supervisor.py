"""The expirer's loops side by side: their waits, failures, signs of life, and the stop."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import pytest
from structlog.testing import capture_logs

from expirer.supervisor import BACKOFF_SECONDS, BACKOFF_SECONDS_MAX, Step, Supervisor
from service.errors import BrokerAway
from tests.stage.waiting import until

SECONDS_MAX = 10
FOREVER = 3_600.0

Outcome = float | Exception


def steps_of(*outcomes: Outcome) -> tuple[Callable[[], Awaitable[float]], list[float]]:
    """A step with these outcomes in turn, the last one for ever; and the times of its calls."""
    calls: list[float] = []

    async def step() -> float:
        calls.append(time.monotonic())
        outcome = outcomes[min(len(calls), len(outcomes)) - 1]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return step, calls


async def run(watched: Supervisor) -> None:
    """Runs it to its end, within SECONDS_MAX."""
    await asyncio.wait_for(watched.run(), SECONDS_MAX)


async def pauses_of(step: Step, clock: Callable[[], float] = time.monotonic) -> list[float]:
    """Runs a loop of this step without waiting, until it would wait for ever. Returns the times that it would wait."""
    waited: list[float] = []

    async def pause(_end: asyncio.Event, seconds: float) -> None:
        waited.append(seconds)
        if seconds == FOREVER:
            watched.stop()

    watched = Supervisor({"loop": step}, clock, pause)
    await run(watched)
    return waited


async def until_called(calls: Sequence[float], times: int = 1) -> None:
    """Returns when the step was called this often."""

    async def enough() -> bool:
        return len(calls) >= times

    await asyncio.sleep(0)
    await until(enough, f"{times} calls")


async def test_a_loop_waits_as_long_as_its_step_says() -> None:
    step, calls = steps_of(0, 0, 1.5, FOREVER)
    assert await pauses_of(step) == [0, 0, 1.5, FOREVER]
    assert len(calls) == 4


async def test_failures_back_off_up_to_a_limit() -> None:
    failures = 12
    step, _ = steps_of(*[ValueError("no")] * failures, FOREVER)
    pauses = await pauses_of(step)
    assert len(pauses) == failures + 1
    for n, seconds in enumerate(pauses[:failures]):
        longest = min(BACKOFF_SECONDS * 2**n, BACKOFF_SECONDS_MAX)
        assert longest / 2 <= seconds <= longest
    assert pauses[failures - 1] >= BACKOFF_SECONDS_MAX / 2


async def test_after_a_success_the_backoff_begins_again() -> None:
    bad = OSError("away")
    step, _ = steps_of(bad, bad, bad, bad, 1.0, bad, FOREVER)
    pauses = await pauses_of(step)
    assert pauses[4] == 1.0
    assert pauses[5] <= BACKOFF_SECONDS


async def test_a_loop_that_hangs_delays_no_other() -> None:
    hanging = asyncio.Event()

    async def hang() -> float:
        await hanging.wait()
        return 0

    step, calls = steps_of(0, 0, 0, FOREVER)
    watched = Supervisor({"hanging": hang, "loop": step})
    running = asyncio.create_task(run(watched))
    await until_called(calls, 4)
    hanging.set()
    watched.stop()
    await running


async def test_stopping_ends_a_pause_and_begins_no_further_step() -> None:
    step, calls = steps_of(FOREVER)
    watched = Supervisor({"loop": step})
    running = asyncio.create_task(run(watched))
    await until_called(calls)
    watched.stop()
    await running
    assert len(calls) == 1


async def test_stopping_lets_the_step_at_hand_finish() -> None:
    begun, may_finish, finished = asyncio.Event(), asyncio.Event(), []

    async def step() -> float:
        begun.set()
        await may_finish.wait()
        finished.append("step")
        return 0

    watched = Supervisor({"loop": step})
    running = asyncio.create_task(run(watched))
    await begun.wait()
    watched.stop()
    await asyncio.sleep(0)
    assert not running.done()
    may_finish.set()
    await running
    assert finished == ["step"]


class Clock:
    """A clock that stops until it is moved."""

    now = 1_000.0

    def __call__(self) -> float:
        """As `time.monotonic`."""
        return self.now


async def test_steps_of_a_woken_loop_keep_their_distance() -> None:
    clock, waited, woken_after = Clock(), list[float](), {2}
    step, calls = steps_of(60.0, 60.0, FOREVER)

    async def pause(_end: asyncio.Event, seconds: float) -> None:
        waited.append(round(seconds, 3))
        if len(waited) not in woken_after:
            clock.now += seconds
        if seconds > FOREVER / 2:
            watched.stop()

    watched = Supervisor({"loop": step}, clock, pause, spacing={"loop": 0.2})
    await run(watched)
    assert len(calls) == 3
    assert waited[:4] == [0.2, 59.8, 0.2, 59.8], "woken at once or after a minute: the distance is kept, and no more"


async def test_full_batches_and_short_pauses_are_not_spaced() -> None:
    clock = Clock()
    step, _ = steps_of(0, 0, 0.1, FOREVER)
    waited: list[float] = []

    async def pause(_end: asyncio.Event, seconds: float) -> None:
        waited.append(round(seconds, 3))
        clock.now += seconds
        if seconds > FOREVER / 2:
            watched.stop()

    watched = Supervisor({"loop": step}, clock, pause, spacing={"loop": 0.4})
    await run(watched)
    assert waited[:4] == [0, 0, 0.1, 0]


@pytest.mark.parametrize(
    ("outcome", "silent_after"),
    [(0.0, 5.0), (60.0, 65.0), (ValueError("no"), 5.0 + BACKOFF_SECONDS)],
    ids=["after a full batch", "while it waits as its step said", "after a failure"],
)
async def test_loop_is_silent_once_its_next_step_is_long_overdue(outcome: Outcome, silent_after: float) -> None:
    clock = Clock()
    hanging = asyncio.Event()
    first, calls = steps_of(outcome)

    async def step() -> float:
        if calls:
            await hanging.wait()
        return await first()

    watched = Supervisor({"loop": step, "other": steps_of(FOREVER)[0]}, clock)
    running = asyncio.create_task(run(watched))
    await until_called(calls)
    assert watched.silent(5) == []
    clock.now += silent_after - BACKOFF_SECONDS
    assert watched.silent(5) == []
    clock.now += BACKOFF_SECONDS + 0.01
    assert watched.silent(5) == ["loop"]
    watched.stop()
    hanging.set()
    await running


async def test_loop_that_hangs_in_its_first_step_becomes_silent() -> None:
    clock = Clock()
    hanging = asyncio.Event()

    async def hang() -> float:
        await hanging.wait()
        return 0

    watched = Supervisor({"loop": hang}, clock)
    running = asyncio.create_task(run(watched))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert watched.silent(5) == []
    clock.now += 5.01
    assert watched.silent(5) == ["loop"]
    hanging.set()
    watched.stop()
    await running


async def test_failure_and_recovery_of_a_loop_are_each_logged_once() -> None:
    clock = Clock()
    step, _ = steps_of(*[BrokerAway("no")] * 20, 0.0, 0.0, FOREVER)

    async def second_by_second() -> float:
        clock.now += 1
        return await step()

    with capture_logs() as lines:
        await pauses_of(second_by_second, clock)
    assert lines == [
        {"event": "step failed", "log_level": "warning", "failures": 1, "seconds": 0, "error": "BrokerAway('no')"},
        {"event": "step works again", "log_level": "info", "failures": 20, "seconds": 20},
    ]
