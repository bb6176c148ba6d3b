"""An upgrade with a migration and a rollback while customers buy, without a failed request."""

import asyncio

from tests.cluster.kubernetes import Release
from tests.cluster.next_image import NEXT
from tests.cluster.shoppers import shopping, until_sold_again
from tests.cluster.verdict import assert_true, schema


def images(release: Release) -> set[str]:
    """The image tags of the API's and the expirer's pods."""
    pods = [*release.pods("api"), *release.pods("expirer")]
    return {pod["spec"]["containers"][0]["image"].rpartition(":")[2] for pod in pods}


async def test_upgrade_and_rollback_lose_no_request_and_no_hold(release: Release, next_tag: str) -> None:
    async with shopping(release) as shoppers:
        await until_sold_again(shoppers)
        await asyncio.to_thread(release.upgrade, tag=next_tag)
        assert images(release) == {next_tag}
        assert schema(release) == NEXT
        await until_sold_again(shoppers)
        await asyncio.to_thread(release.helm, "rollback", "rowlock", "--wait", "--timeout", "6m")
        assert images(release) == {release.cluster.tag}
        assert schema(release) == NEXT, "the release before works on it"
        await until_sold_again(shoppers)
    assert shoppers.failures == []
    assert_true(release, shoppers)
