"""A new release while customers buy: another image with another migration, and back again. Nobody notices."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.migrations import NEWEST
from tests.cluster.kubernetes import Release, run
from tests.cluster.shoppers import shopping, until_sold_again
from tests.cluster.verdict import assert_true

NEXT = f"{int(NEWEST) + 1:04}"
SQL = "create table next_release (id bigint primary key);\n"
PYTHON = f'''"""Of the release after this one."""

from service.migrations import run_sql

revision = "{NEXT}"
down_revision = "{NEWEST}"


def upgrade() -> None:
    """Runs {NEXT}.sql."""
    run_sql(revision)
'''
DOCKERFILE = f"""FROM {{image}}
COPY {NEXT}.sql /app/service/migrations/
COPY {NEXT}.py /app/service/migrations/versions/
"""


@pytest.fixture
def next_tag(release: Release, tmp_path: Path) -> Iterator[str]:
    """An image of the next release, which needs a newer schema."""
    repository, tag = release.cluster.repository, f"{release.cluster.tag}-next"
    (tmp_path / f"{NEXT}.sql").write_text(SQL)
    (tmp_path / f"{NEXT}.py").write_text(PYTHON)
    (tmp_path / "Dockerfile").write_text(DOCKERFILE.format(image=f"{repository}:{release.cluster.tag}"))
    for path in tmp_path.iterdir():
        path.chmod(0o644)
    run("docker", "build", "--quiet", "--tag", f"{repository}:{tag}", str(tmp_path), DOCKER_BUILDKIT="1")
    release.cluster.publish(tag)
    yield tag
    run("docker", "image", "rm", f"{repository}:{tag}")


def images(release: Release) -> set[str]:
    """Of the pods that customers and the log depend on."""
    pods = [*release.pods("api"), *release.pods("expirer")]
    return {pod["spec"]["containers"][0]["image"].rpartition(":")[2] for pod in pods}


def schema(release: Release) -> str:
    """The database's."""
    return release.sql("select max(version_num) from alembic_version")[0][0]


async def test_an_upgrade_with_a_migration_and_the_way_back_fail_no_request_and_lose_no_hold(
    release: Release, next_tag: str
) -> None:
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
