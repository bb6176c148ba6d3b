"""The rule for a list: together, then one by one where one member is the reason for a failure."""

import asyncio

import pytest

from service.errors import Busy, BusyReason, DatabaseAway
from service.ledger.one_by_one import at_once, in_turn, together_then_one_by_one

OF_ONE = [
    Busy(BusyReason.ROW_LOCK),
    Busy(BusyReason.STATEMENT),
    Busy(BusyReason.COLLISION),
    Busy(BusyReason.SCHEMA),
    ValueError("bad data"),
]
OF_ALL = [Busy(BusyReason.CONNECTION), DatabaseAway()]


async def halve(member: int) -> int:
    """Fails for odd members."""
    if member % 2:
        raise ValueError(member)
    return member // 2


async def write(error: Exception | None) -> str:
    """Fails with the error, if there is one; else tries the list together, and the members alone after a failure."""

    async def together() -> str:
        if error:
            raise error
        return "together"

    async def one_by_one(failure: Exception) -> str:
        assert failure is error
        return "one by one"

    return await together_then_one_by_one(together, one_by_one)


async def test_list_is_written_together() -> None:
    assert await write(None) == "together"


@pytest.mark.parametrize("error", OF_ONE, ids=repr)
async def test_failure_of_one_member_leads_to_one_by_one(error: Exception) -> None:
    assert await write(error) == "one by one"


@pytest.mark.parametrize("error", OF_ALL, ids=repr)
async def test_failure_that_concerns_all_is_raised(error: Exception) -> None:
    with pytest.raises(type(error)):
        await write(error)


async def test_members_in_turn_get_their_own_answers() -> None:
    answers = [(member, repr(answer)) async for member, answer in in_turn([2, 3, 4], halve, 0, lambda: 0)]
    assert answers == [(2, "1"), (3, "ValueError(3)"), (4, "2")]


async def test_members_in_turn_end_at_the_deadline() -> None:
    seconds = iter([0.0, 5.0, 5.1])
    assert [member async for member, _ in in_turn([2, 4, 6], halve, 5, lambda: next(seconds))] == [2, 4]


async def test_members_in_turn_end_with_an_error_of_all() -> None:
    async def fail_at_four(member: int) -> int:
        if member == 4:
            raise DatabaseAway
        return member

    tried: list[int] = []

    async def try_all() -> None:
        async for member, _ in in_turn([2, 4, 6], fail_at_four, 0, lambda: 0):
            tried.append(member)

    with pytest.raises(DatabaseAway):
        await try_all()
    assert tried == [2]


async def test_members_at_once_wait_together_and_answer_in_order() -> None:
    started = asyncio.Barrier(3)

    async def wait_for_all(member: int) -> int:
        await started.wait()
        return await halve(member)

    answers = await asyncio.wait_for(at_once([2, 3, 4], wait_for_all), 5)
    assert list(map(repr, answers)) == ["1", "ValueError(3)", "2"]
