"""The commands of the README and the tutorial, pasted into a shell as they are, against the real processes."""

import asyncio
import re
from pathlib import Path

from dev import demo
from dev.postgres import Postgres
from service.database import Connection
from tests.stage.processes import ROOT, api_process, environment

README_LINES_MAX = 150
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)


def commands(page: str) -> str:
    """The `bash` blocks of a page, one after the other."""
    return "".join(BLOCK.findall(Path(ROOT, page).read_text()))


async def pasted(page: str, postgres: Postgres, *, with_demo: bool = False) -> str:
    """The output of a page's commands against an API of their own; they must all succeed."""
    script = "set -euo pipefail\n" + commands(page)
    async with api_process(postgres.url()) as api:
        if with_demo:
            await asyncio.to_thread(demo.load, api.url)
        shell = await asyncio.create_subprocess_exec(
            "bash",
            "-c",
            script,
            env=environment(postgres.url(), port=api.url.rpartition(":")[2]),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output = (await shell.communicate())[0].decode()
    assert shell.returncode == 0, output
    return output


def test_the_readme_is_short() -> None:
    assert len(Path(ROOT, "README.md").read_text().splitlines()) <= README_LINES_MAX


async def test_the_quick_start_works_as_it_is_pasted(postgres: Postgres, sql: Connection) -> None:
    assert commands("README.md").count("curl ") == 3
    output = await pasted("README.md", postgres, with_demo=True)
    assert '"movie":"Metropolis"' in output
    assert '"state":"HELD"' in output
    assert await sql.fetchval("select array_agg(state) from reservations") == ["HELD"]


async def test_the_tutorial_works_as_it_is_pasted(postgres: Postgres, sql: Connection) -> None:
    output = await pasted("docs/tutorial.md", postgres)
    for expected in ("HTTP/1.1 201", "seats-taken", '"state":"CONFIRMED"', '"state":"CANCELLED"', '"state":"SOLD"'):
        assert expected in output, output
    assert "idempotency-replayed: true" in output.lower()
    assert await sql.fetchval("select count(*) from reservations") == 2
    assert await sql.fetchval("select array_agg(state order by id) from reservations") == ["CONFIRMED", "CANCELLED"]
