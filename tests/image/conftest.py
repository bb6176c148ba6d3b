"""The image, built once for all tests."""

import secrets
from collections.abc import Iterator

import pytest

from tests.image.docker import docker


@pytest.fixture(scope="session")
def image() -> Iterator[str]:
    """The name of an image of this checkout, which is removed at the end."""
    name = f"rowlock-test:{secrets.token_hex(4)}"
    docker("build", "--quiet", "--tag", name, "--build-arg", "VERSION=1.2.3", ".")
    yield name
    docker("image", "rm", "--force", name)
