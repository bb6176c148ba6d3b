"""The figures of a campaign: what they count, and from when."""

import random
from typing import Any

import orjson

from load.campaign.campaign import Options, Result
from load.campaign.figures import first_successes, latest, summary
from load.campaign.history import HOLD, PAY, Fault, History, Limits, Operation, Reservation
from load.campaign.timeline import Violation
from tests.campaign.simulator import Simulator

SECOND = 1_000_000


def test_success_counts_from_the_begin_of_a_fault() -> None:
    history = acknowledged_at(2, 14, 30)
    history.faults.append(Fault("redis-killed", 10 * SECOND, 20 * SECOND))
    assert first_successes(history) == {"redis-killed": {"count": 1, "median": 4.0, "max": 4.0}}


def test_success_after_a_failover_counts_from_the_promotion() -> None:
    history = acknowledged_at(2, 14, 30)
    history.faults += [
        Fault("postgres-failed-over", 3 * SECOND, 20 * SECOND, back=12 * SECOND),
        Fault("postgres-restarted", 3 * SECOND, 20 * SECOND),
    ]
    found = first_successes(history)
    assert found["postgres-failed-over"]["max"] == 2.0
    assert found["postgres-restarted"]["max"] == 10.0


def test_a_replay_is_no_success() -> None:
    history = acknowledged_at(30)
    history.operations.insert(0, Operation(9, HOLD, "c", 12 * SECOND, 13 * SECOND, 201, replayed=True))
    history.faults.append(Fault("api-killed", 10 * SECOND, 11 * SECOND))
    assert first_successes(history)["api-killed"]["max"] == 20.0


def test_lateness_is_given_with_and_without_faults() -> None:
    history = History(Limits(1, 4, 4))
    history.reservations["late"] = expired(expires_at=10 * SECOND, settled_at=25 * SECOND)
    history.reservations["quick"] = expired(expires_at=70 * SECOND, settled_at=71 * SECOND)
    history.faults.append(Fault("expirer-killed", 9 * SECOND, 24 * SECOND))
    assert latest(history) == {"ever": 15.0, "outside_faults": 1.0}


def test_the_summary_counts_resolved_outcomes() -> None:
    history = History(Limits(1, 4, 4))
    history.operations += [
        Operation(1, PAY, "c", 1, reservation="first"),
        Operation(2, PAY, "c", 2, 3, 200, reservation="first"),
        Operation(3, PAY, "c", 4, reservation="second"),
        Operation(4, PAY, "c", 5, 6, 503, "busy", reservation="second"),
    ]
    assert figures_of(history)["unknown_outcomes"] == {"writes": 2, "resolved": 1}


def test_the_summary_of_a_good_history_is_whole() -> None:
    history = Simulator(random.Random(2)).run(200)
    figures = figures_of(history)
    assert sum(sum(counts.values()) for counts in figures["outcomes"].values()) == figures["operations"]
    assert figures["postgresql"] == "18.4"
    assert figures["faults"] == {"redis killed": 1}
    assert figures["skipped"] == [{"kind": "redis-killed", "reason": "gone"}]
    assert figures["violations_by_rule"] == {"lost": 60}
    assert len(figures["violations"]) == 50


def figures_of(history: History) -> dict[str, Any]:
    """The summary of a campaign with this history."""
    violations = [Violation("lost", "a hold is lost")] * 60
    result = Result(history, violations, "18.4 (Debian)", [("redis-killed", "gone")])
    made: dict[str, Any] = orjson.loads(summary(Options(10, 1, []), result))
    return made


def acknowledged_at(*seconds: int) -> History:
    """A history with a hold that was acknowledged at each of these times."""
    history = History(Limits(1, 4, 4))
    history.operations += [Operation(n, HOLD, "c", n * SECOND - 5, n * SECOND, 201) for n in seconds]
    return history


def expired(expires_at: int, settled_at: int) -> Reservation:
    """A hold that has expired."""
    return Reservation("r", "c", 1, (1,), "EXPIRED", 1, 0, expires_at, settled_at, None, "", None)
