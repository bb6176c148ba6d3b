"""A collector of traces, for the tests that need one."""

from collections.abc import Iterator

import pytest

from tests.stage.collector import Collector, collecting


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Receives traces."""
    with collecting() as made:
        yield made
