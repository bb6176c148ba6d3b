"""The product's commands as processes of their own."""

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.stage.processes import ROOT, environment

MIGRATE = (sys.executable, "-m", "service.migrate")
API = (str(Path(sys.executable).with_name("gunicorn")), "--config", "service/gunicorn.conf.py")
EXPIRER = (sys.executable, "-m", "expirer")
SECONDS_MAX = 60


@dataclass(frozen=True, slots=True)
class Result:
    """The end of a command."""

    code: int
    output: str
    errors: str


async def run(command: tuple[str, ...], variables: Mapping[str, str]) -> Result:
    """Runs a command in the project's folder. After SECONDS_MAX it is killed, and TimeoutError raised."""
    process = await asyncio.create_subprocess_exec(
        *command, env=variables, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), SECONDS_MAX)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Result(process.returncode, output.decode(), errors.decode())


async def expirer_command(database_url: str, *arguments: str, **changes: Any) -> Result:
    """`python -m expirer` with these arguments and settings."""
    return await run((*EXPIRER, *arguments), environment(database_url, **changes))
