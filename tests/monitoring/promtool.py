"""Debian's promtool."""

import shutil
import subprocess
from pathlib import Path


def program(name: str) -> str:
    """The program's path. `make monitoring` installs it."""
    path = shutil.which(name)
    assert path, f"{name} is not on PATH, and these tests are nothing without it: apt-get install prometheus"
    return path


def promtool(*arguments: str | Path) -> str:
    """Promtool's output. Fails with it if promtool finds a fault."""
    command = [program("promtool"), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr
