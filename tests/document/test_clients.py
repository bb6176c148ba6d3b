"""Linters find nothing in the document, and clients that are generated from it type-check and work."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from service.app import create_app
from service.settings import Settings
from tests.stage.factories import make_settings
from tests.stage.processes import api_process
from tests.stage.sources import ROOT

TOOLS = ROOT / "dev" / "openapi"
NODE, PYTHON = TOOLS / "node_modules" / ".bin", TOOLS / ".venv" / "bin"
STRICT = ("--strict", "--noEmit", "--module", "nodenext", "--target", "es2022", "--skipLibCheck", "--lib", "es2022,dom")


def run(*command: str | Path, folder: Path) -> str:
    """The output of a command that must succeed."""
    environment = os.environ | {"REDOCLY_TELEMETRY": "off", "PATH": f"{PYTHON}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the document."""
    made = tmp_path_factory.mktemp("document")
    document = create_app(make_settings("postgresql://rowlock@127.0.0.1/rowlock")).openapi()
    (made / "openapi.json").write_text(json.dumps(document))
    return made


def test_redocly_finds_nothing(folder: Path) -> None:
    output = run(NODE / "redocly", "lint", "openapi.json", "--config", TOOLS / "redocly.yaml", folder=folder)
    assert "warning" not in output.replace("Deprecation warning", "")


def test_spectral_finds_nothing(folder: Path) -> None:
    command = (NODE / "spectral", "lint", "openapi.json", "--fail-severity", "hint")
    run(*command, "--ruleset", TOOLS / "spectral.yaml", folder=folder)


def test_a_typescript_client_type_checks(folder: Path) -> None:
    run(NODE / "openapi-typescript", "openapi.json", "--output", "schema.d.ts", folder=folder)
    for name in ("flow.ts", "package.json"):
        shutil.copy(TOOLS / name, folder)
    (folder / "node_modules").symlink_to(TOOLS / "node_modules")
    run(NODE / "tsc", *STRICT, "flow.ts", folder=folder)


@pytest.mark.timeout(300)
async def test_a_python_client_sells_and_is_refused(folder: Path, settings: Settings) -> None:
    options = ("--path", "openapi.json", "--output-path", "rowlock_client", "--meta", "none")
    assert "Warning" not in run(PYTHON / "openapi-python-client", "generate", *options, folder=folder)
    shutil.copy(TOOLS / "flow.py", folder)
    run(PYTHON / "mypy", "--config-file", TOOLS / "mypy.ini", "-p", "rowlock_client", "-m", "flow", folder=folder)
    async with api_process(settings.database_url.get_secret_value(), open_manager_sign_up=True) as api:
        run(PYTHON / "python", "flow.py", api.url, folder=folder)
