"""Which rounds of `make bench` count, and what their ratios compare."""

import re

import pytest

from load.bench import plot
from load.bench.answers import Answers
from load.bench.measured import Measured
from load.bench.meter import Reading, Used
from load.bench.results import Round, judge, medians, ratios

QUIET = 0.1


def round_of(*rates: float, others_cores: float = QUIET) -> Round:
    """A round with these rates of N, B, P1, REF, and holds with PostgreSQL alone and with everything on."""
    names = ("N", "B", "P1", "REF", "hold, 1 process", "hold, all on, 1 process")
    return Round([Measured(name, rate, {}, others_cores) for name, rate in zip(names, rates, strict=False)])


def answers_of(measured: dict[int, int], total: dict[int, int]) -> Answers:
    """What the generator reports after two seconds: the other answers came later."""
    statuses = [status for status, count in total.items() for _ in range(count)]
    left = dict(measured)
    until = []
    for status in statuses:
        left[status] = left.get(status, 0) - 1
        until.append(1.0 if left[status] >= 0 else 3.0)
    same = [0] * len(statuses)
    return Answers([0.0] * len(statuses), until, statuses, same, same, 2, 0, 0, Used(2, {"API": 0.5}, QUIET))


def test_quiet_rounds_count() -> None:
    rounds = [round_of(rate) for rate in (85, 100, 115)]
    judge(rounds)
    assert [one.void for one in rounds] == [[], [], []]
    assert medians(rounds)["N"]["per_second"] == 100


def test_round_beside_other_work_is_void() -> None:
    rounds = [round_of(100), round_of(100), round_of(80, others_cores=0.31)]
    judge(rounds)
    assert [len(one.void) for one in rounds] == [0, 0, 1]
    assert medians(rounds)["N"]["per_second_min"] == 100


def test_round_with_another_n_is_void() -> None:
    rounds = [round_of(100), round_of(100), round_of(79), round_of(121)]
    judge(rounds)
    assert [len(one.void) for one in rounds] == [0, 0, 1, 1]


def test_void_rounds_are_shown_where_no_other_is_left() -> None:
    rounds = [round_of(100, others_cores=1)]
    judge(rounds)
    assert rounds[0].void
    assert medians(rounds)["N"]["per_second"] == 100


def test_ratios_compare_with_the_limits_of_the_same_run() -> None:
    found = ratios(medians([round_of(300, 100, 50, 5, 60, 30)]))
    assert found["l_per_second"] == pytest.approx(75)
    assert [found[f"ours_over_{limit}"] for limit in ("l", "ref", "p1")] == pytest.approx([0.8, 12, 1.2])
    assert [found[f"ours_over_{limit}_all_on"] for limit in ("l", "ref", "p1")] == pytest.approx([0.4, 6, 0.6])


def test_work_of_others_is_the_machines_without_ours() -> None:
    before, after = Reading(0, {"API": 1, "bench": 0}, 10), Reading(2, {"API": 2, "bench": 0.5}, 12)
    assert before.until(after) == Used(2, {"API": 1, "bench": 0.5}, 0.25)


def test_unexpected_answer_fails_the_measurement() -> None:
    made = Measured.of_answers("hold", answers_of({201: 10}, {201: 12}), 201)
    assert (made.per_second, made.cpu_us) == (5, {"API": 50_000})
    with pytest.raises(RuntimeError, match="503"):
        Measured.of_answers("hold", answers_of({201: 10}, {201: 12, 503: 1}), 201)


def test_plot_shows_each_limit_and_ours() -> None:
    found = medians([round_of(300, 100, 50, 5, 60, 30)])
    picture = plot.svg({"medians": found, "ratios": ratios(found)})
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", picture)
    assert texts[::2] == ["N", "B", "L", "P1", "REF", "hold, 1 process", "hold, all on, 1 process"]
    assert texts[1::2] == ["300/s", "100/s", "75/s", "50/s", "5/s", "60/s", "30/s"]
