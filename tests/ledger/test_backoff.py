"""Delays between tries."""

import pytest

from service.backoff import delay_after


@pytest.mark.parametrize(("failures", "delay"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 3.0), (1_000_000, 3.0)])
def test_delay_doubles_up_to_the_longest(failures: int, delay: float) -> None:
    assert delay_after(failures, 0.5, 3) == delay


def test_jitter_spreads_over_the_upper_half_of_the_delay() -> None:
    delays = [delay_after(2, 50, 1_000, jitter=True) for _ in range(1_000)]
    assert 50 <= min(delays) < 60
    assert 90 < max(delays) <= 100
