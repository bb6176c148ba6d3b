"""The log of a failing loop: a change at once, then a reminder a minute."""

from collections.abc import MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from expirer.supervisor import report_step
from service.errors import BrokerAway, CacheAway, DatabaseAway
from service.observability.failures import CHANGES_MAX, Failures

AWAY = BrokerAway("no")
WORKED = None


def lines_of(*outcomes: Exception | None) -> list[MutableMapping[str, Any]]:
    """The log lines of these outcomes of a step, one a second."""
    failures = Failures()
    with capture_logs() as lines:
        for now, outcome in enumerate(outcomes, 1_000):
            report_step(failures, outcome, now)
    return lines


def told(lines: list[MutableMapping[str, Any]]) -> list[tuple[str, str, int, int]]:
    """The level, event, failures and seconds of each line."""
    return [(line["log_level"], line["event"], line["failures"], line["seconds"]) for line in lines]


def raised_here(text: str) -> Exception:
    """A defect."""
    nothing: dict[str, str] = {}
    try:
        nothing[text]
    except KeyError as error:
        return error
    raise AssertionError


def test_an_outage_is_logged_at_once_each_minute_and_at_its_end() -> None:
    # As while Redis is away: the words differ from one try to the next.
    words = [CacheAway("ConnectionError: refused"), CacheAway("Redis was down a moment ago")]
    assert told(lines_of(*words * 75, WORKED, WORKED)) == [
        ("warning", "step failed", 1, 0),
        ("warning", "step failed", 61, 60),
        ("warning", "step failed", 121, 120),
        ("info", "step works again", 150, 150),
    ]


def test_alternating_kinds_of_errors_are_logged_once_each() -> None:
    lines = lines_of(*[AWAY, DatabaseAway()] * 25)
    assert [(line["failures"], line["error"]) for line in lines] == [(1, "BrokerAway('no')"), (2, "DatabaseAway()")]


def test_a_second_outage_is_logged_at_once() -> None:
    assert told(lines_of(AWAY, WORKED, AWAY, AWAY, WORKED)) == [
        ("warning", "step failed", 1, 0),
        ("info", "step works again", 1, 1),
        ("warning", "step failed", 1, 0),
        ("info", "step works again", 2, 2),
    ]


def test_a_loop_that_fails_every_other_time_is_logged_rarely() -> None:
    # Two minutes.
    assert len(lines_of(*[AWAY, WORKED] * 60)) == 2 * 2 * CHANGES_MAX
    lasting = lines_of(*[AWAY, WORKED] * 10, *[AWAY] * 60)
    assert (lasting[-1]["event"], lasting[-1]["seconds"]) == ("step failed", 44), "a minute after the last line"


def test_each_defect_is_an_error_with_its_traceback() -> None:
    elsewhere = ValueError("second")
    lines = lines_of(*[raised_here("first")] * 10, elsewhere, *[raised_here("third")] * 50, WORKED)
    assert told(lines) == [
        ("error", "step failed", 1, 0),
        ("error", "step failed", 11, 10),
        ("error", "step failed", 61, 60),
        ("info", "step works again", 61, 61),
    ]
    assert [repr(line["exc_info"]) for line in lines[:3]] == [
        "KeyError('first')",
        "ValueError('second')",
        "KeyError('third')",
    ]


def test_a_defect_while_something_is_away_is_not_hidden() -> None:
    lines = lines_of(*[AWAY, WORKED] * 10, AWAY, raised_here("first"), AWAY)
    assert [line["log_level"] for line in lines].count("error") == 1


@pytest.mark.parametrize(
    ("error", "cause", "text"),
    [
        (CacheAway("TimeoutError: "), TimeoutError(), "CacheAway('TimeoutError: ')"),
        (DatabaseAway(), OSError("refused"), "DatabaseAway(): OSError('refused')"),
        (BrokerAway("no"), None, "BrokerAway('no')"),
    ],
)
def test_a_line_says_once_why(error: Exception, cause: Exception | None, text: str) -> None:
    error.__cause__ = cause
    (line,) = lines_of(error)
    assert line["error"] == text
