"""The README's flow, pasted into a shell as it stands, against the real processes."""

import asyncio
import re
from pathlib import Path

from dev.postgres import Postgres
from service.database import Connection
from tests.processes import ROOT, api_process, environment

FLOW = re.compile(r"## The flow, step by step\n(.*?)\n## ", re.DOTALL)
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)


def flow() -> str:
    """The commands of the section, block after block."""
    section = FLOW.search(Path(ROOT, "README.md").read_text())
    assert section
    return "".join(BLOCK.findall(section.group(1)))


async def test_the_flow_of_the_readme_works_as_it_is_pasted(postgres: Postgres, sql: Connection) -> None:
    script = "set -euo pipefail\n" + flow()
    async with api_process(postgres.url()) as api:
        port = api.url.rpartition(":")[2]
        shell = await asyncio.create_subprocess_exec(
            "bash",
            "-c",
            script,
            env=environment(postgres.url(), port=port),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output = (await shell.communicate())[0].decode()
    assert shell.returncode == 0, output
    for expected in ("HTTP/1.1 201", "seats-taken", '"state":"CONFIRMED"', '"state":"CANCELLED"', '"state":"SOLD"'):
        assert expected in output, output
    assert await sql.fetchval("select count(*) from reservations") == 2
    assert await sql.fetchval("select array_agg(state order by id) from reservations") == ["CONFIRMED", "CANCELLED"]
