"""Debian's promtool."""

import shutil
import subprocess
from pathlib import Path


def program(name: str) -> str:
    """Its path; `make monitoring` installs it."""
    path = shutil.which(name)
    assert path, f"{name} is not on PATH, and these tests are nothing without it: apt-get install prometheus"
    return path


def promtool(*arguments: str | Path) -> str:
    """What it prints; fails with that where it finds fault."""
    command = [program("promtool"), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr
