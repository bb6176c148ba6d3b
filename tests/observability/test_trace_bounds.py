"""Whatever others ask for, so many traces, spans and links are kept, and no more."""

import time
from collections.abc import Iterator

import pytest

from service.observability import spans, tracing
from service.settings import Settings
from tests.stage.collector import Collector, collecting
from tests.stage.factories import make_settings

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Takes traces."""
    with collecting() as made:
        yield made


@pytest.fixture
def settings(collector: Collector) -> Settings:
    """Nothing is traced unless somebody else has decided so."""
    return make_settings("postgresql://nobody@nowhere/nothing", trace_endpoint=collector.url, trace_sample_ratio=0)


def count_forced(requests: int) -> int:
    """How many of so many requests that a trusted proxy wants traced are."""
    begun = [tracing.begin_request("GET", SAMPLED, is_trusted=True) for _ in range(requests)]
    tracing.current.set(None)
    return sum(request.span is not None for request in begun)


async def test_even_a_trusted_proxy_can_t_force_more_than_so_many_traces_a_second(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tracing.exported(settings, "test"):
        for second in (1e9, 1e9 + 1):
            monkeypatch.setattr(time, "monotonic", lambda now=second: now)
            assert count_forced(60) == tracing.FORCED_PER_SECOND_MAX
        tracing._state.ratio = 1
        assert count_forced(60) == 60, "what is beyond that is left to our own ratio"
        monkeypatch.undo()


async def test_spans_that_nobody_takes_are_dropped_beyond_a_bound(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not the library's own bound, which happens to be the same.
    monkeypatch.setattr(spans, "QUEUE_SPANS_MAX", 600)
    async with tracing.exported(settings, "test"):
        made = tracing._state.spans
        assert made is not None
        (processor,) = made._provider._active_span_processor._span_processors
        queue = processor._batch_processor._queue  # type: ignore[attr-defined]  # what bounds it
        assert queue.maxlen == 600


async def test_a_span_keeps_a_link_to_each_member_of_the_largest_batch_and_no_more(settings: Settings) -> None:
    batches = (name for name in Settings.model_fields if name.endswith("_batch_max"))
    assert max(most(name) for name in batches) <= spans.LINKS_MAX
    async with tracing.exported(settings, "test"):
        made = tracing._state.spans
        assert made is not None
        span = made.begin("batch", "internal", None)
        made.link(span, *[SAMPLED] * (spans.LINKS_MAX + 1))
        assert len(span.links) == spans.LINKS_MAX  # type: ignore[attr-defined]  # the library's span has them


def most(name: str) -> int:
    """The largest value that the setting may have."""
    bounds = [bound.le for bound in Settings.model_fields[name].metadata if hasattr(bound, "le")]
    assert bounds, name
    return int(min(bounds))
