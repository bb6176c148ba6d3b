"""An image of the next release, which needs a newer schema."""

from pathlib import Path

from service.migrations import NEWEST
from tests.cluster.kubernetes import Cluster, run

NEXT = f"{int(NEWEST) + 1:04}"
TABLE = "next_release"
SQL = f"create table {TABLE} (id bigint primary key);\n"
DOCKERFILE = f"""FROM {{image}}
COPY {NEXT}.sql /app/service/migrations/
"""


def publish_next(cluster: Cluster, folder: Path) -> str:
    """Builds the image in an empty folder and publishes it. Returns its tag."""
    repository, tag = cluster.repository, f"{cluster.tag}-next"
    (folder / f"{NEXT}.sql").write_text(SQL)
    (folder / "Dockerfile").write_text(DOCKERFILE.format(image=f"{repository}:{cluster.tag}"))
    for path in folder.iterdir():
        path.chmod(0o644)
    run("docker", "build", "--quiet", "--tag", f"{repository}:{tag}", str(folder), DOCKER_BUILDKIT="1")
    cluster.publish(tag)
    return tag
