"""The README's flow, pasted into a shell as it stands, against the real processes; its map of the code."""

import asyncio
import re
from pathlib import Path

import pytest

from dev.postgres import Postgres
from service.database import Connection
from tests.stage.processes import ROOT, api_process, environment

FLOW = re.compile(r"## The flow, step by step\n(.*?)\n## ", re.DOTALL)
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
MAP = re.compile(r"## The code\n\n```\n(.*?)```", re.DOTALL)
FOLDER = re.compile(r"^(\w+)/ ", re.MULTILINE)
NAMED = re.compile(r"[\w.]+\.py\b|\b\w+/")


def flow() -> str:
    """The commands of the section, block after block."""
    section = FLOW.search(Path(ROOT, "README.md").read_text())
    assert section
    return "".join(BLOCK.findall(section.group(1)))


def code_map() -> dict[str, set[str]]:
    """The files and folders that the map names in each folder of the checkout."""
    found = MAP.search(Path(ROOT, "README.md").read_text())
    assert found
    _, *parts = FOLDER.split(found.group(1))
    return {folder: set(NAMED.findall(text)) for folder, text in zip(parts[::2], parts[1::2], strict=True)}


@pytest.mark.parametrize("folder", ["service", "expirer"])
def test_the_map_of_the_code_names_every_file_of_the_product(folder: str) -> None:
    path = Path(ROOT, folder)
    files = {file.name for file in path.glob("*.py") if not file.name.startswith("__")}
    folders = {f"{file.name}/" for file in path.iterdir() if file.is_dir() and file.name != "__pycache__"}
    assert files | folders <= code_map()[folder]


@pytest.mark.parametrize("folder", ["service", "expirer", "dev", "tests"])
def test_the_map_of_the_code_names_nothing_that_is_not_there(folder: str) -> None:
    named = code_map()[folder]
    assert named
    assert not [name for name in named if not list(Path(ROOT, folder).rglob(name.rstrip("/")))]


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
    assert "idempotency-replayed: true" in output.lower()
    assert await sql.fetchval("select count(*) from reservations") == 2
    assert await sql.fetchval("select array_agg(state order by id) from reservations") == ["CONFIRMED", "CANCELLED"]
