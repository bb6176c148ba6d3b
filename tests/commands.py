"""An operator's command, as a process of its own."""

import asyncio
import sys
from dataclasses import dataclass
from typing import Any

from tests.processes import ROOT, environment

SECONDS_MAX = 60


@dataclass(frozen=True, slots=True)
class Done:
    """How it ended, and what it has written."""

    code: int | None
    output: str
    errors: str


async def expirer_command(database_url: str, *arguments: str, **changes: Any) -> Done:
    """`python -m expirer` with these arguments and settings."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "expirer", *arguments),
        env=environment(database_url, **changes),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), SECONDS_MAX)
    return Done(process.returncode, output.decode(), errors.decode())
