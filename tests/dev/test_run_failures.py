"""`make run` that can't start: the message names the cause and no process is left."""
# ruff: noqa: ASYNC240 - the few files do not delay the loop here

import socket
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from dev import parts
from dev.data_folder import opened
from dev.processes import free_port
from tests.stage.runs import environment, output_of_failed_run


async def test_a_port_in_use_is_named_with_its_variable(folder: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        output = await output_of_failed_run(environment(folder, port=port))
    assert f"port {port}" in output
    assert "ROWLOCK_PORT" in output
    assert "Traceback" not in output


async def test_a_folder_in_use_is_named(folder: Path) -> None:
    with opened(folder):
        output = await output_of_failed_run(environment(folder))
    assert f"another make run uses the data folder {folder}" in output


@pytest.mark.parametrize("broken", ["postgresql/data/base/file", "postgresql/data/PG_VERSION", "postgresql/password"])
async def test_a_broken_data_folder_is_named_and_left_as_it_is(folder: Path, broken: str) -> None:
    path = folder / broken
    path.parent.mkdir(parents=True)
    path.write_text("18\n")
    output = await output_of_failed_run(environment(folder))
    assert str(folder / "postgresql") in output
    assert "Traceback" not in output
    assert path.read_text() == "18\n"


async def test_a_folder_that_cannot_be_made_is_named(folder: Path) -> None:
    folder.write_text("a file")
    output = await output_of_failed_run(environment(folder))
    assert f"the data folder {folder} can't be used" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("port", "80000", "ROWLOCK_PORT: Input should be less than or equal to 65535"),
        ("hold_seconds", "soon", "ROWLOCK_HOLD_SECONDS: Input should be a valid integer"),
        ("database_url", "mysql://somewhere", "ROWLOCK_DATABASE_URL"),
        ("database_url", "postgresql://nobody@127.0.0.1:1/nothing", "can't connect to the PostgreSQL of ROWLOCK_DATA"),
        ("open_manager_sign_up", "false", "ROWLOCK_OPEN_MANAGER_SIGN_UP"),
    ],
)
async def test_a_setting_that_is_wrong_is_named(folder: Path, variable: str, value: str, expected: str) -> None:
    output = await output_of_failed_run(environment(folder, **{variable: value}))
    assert expected in output
    assert "Traceback" not in output


async def test_a_process_without_an_answer_is_stopped(folder: Path) -> None:
    folder.mkdir()
    program = parts.Program("it", ["sleep", "60"], folder / "log", f"http://127.0.0.1:{free_port()}/")
    with (
        pytest.raises(parts.RunError, match="did not answer within"),
        parts.started(program, start_seconds_max=0.5),
    ):
        pass
    assert not [line for line in _children() if "sleep 60" in line]


def _children() -> list[str]:
    return [" ".join(child.cmdline()) for child in psutil.Process().children()]
