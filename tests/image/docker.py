"""Docker's command line for these tests."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SECONDS_MAX = 600
AS_IN_PRODUCTION = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
"""The restrictions under which the chart and compose.yml run the product."""


def docker(*arguments: str, expected: int = 0, variables: Mapping[str, str] | None = None) -> str:
    """The command's output and errors; fails unless its exit code is `expected`."""
    result = subprocess.run(
        ["docker", *arguments],  # noqa: S607 - where the machine has it
        cwd=ROOT,
        env=os.environ | {"DOCKER_BUILDKIT": "1"} | dict(variables or {}),
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS_MAX,
    )
    assert result.returncode == expected, result.stdout
    return result.stdout


def run(image: str, *command: str) -> str:
    """The output of a command of the image, run as in production."""
    return docker("run", "--rm", "--network", "none", *AS_IN_PRODUCTION, image, *command)
