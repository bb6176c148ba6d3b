"""`dev/install-packages` while another process has locked apt: it waits, says so, and gives up after its time."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "dev" / "install-packages"
LOCKED = {
    "lists": "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)",
    "dpkg": "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?",
}
SAID = "rowlock: another process has locked apt, waiting up to"


def installed(folder: Path, message: str, locked_times: int, seconds_max: int) -> subprocess.CompletedProcess[str]:
    """Runs the script with an apt-get that fails this often with the message, and then installs."""
    (folder / "tries").write_text("")
    programs = {
        "id": "echo 0",
        "dpkg-query": f"grep -q installed {folder}/tries && echo installed",
        "apt-cache": "echo '  Candidate: 1'",
        "apt-get": f"""
            echo "$1" >>{folder}/tries
            if [ "$(grep -c update {folder}/tries)" -le {locked_times} ]; then echo "{message}" >&2; exit 100; fi
            [ "$1" = update ] || echo installed >>{folder}/tries""",
    }
    for name, body in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    variables = os.environ | {
        "PATH": f"{folder}:{os.environ['PATH']}", "LOCK_SECONDS_MAX": str(seconds_max), "POLICY": str(folder / "id"),
    }  # fmt: skip
    return subprocess.run(
        [str(SCRIPT), "hello"], env=variables, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("lock", LOCKED)
def test_it_waits_for_apts_lock_and_says_so_once(tmp_path: Path, lock: str) -> None:
    done = installed(tmp_path, LOCKED[lock], locked_times=2, seconds_max=30)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"{SAID} 30 s for it") == 1
    assert "installed" in (tmp_path / "tries").read_text()


def test_it_gives_up_with_apts_message(tmp_path: Path) -> None:
    done = installed(tmp_path, LOCKED["lists"], locked_times=99, seconds_max=1)
    assert done.returncode == 1
    assert LOCKED["lists"] in done.stderr


def test_it_waits_for_nothing_else(tmp_path: Path) -> None:
    done = installed(tmp_path, "E: Unable to locate package hello", locked_times=99, seconds_max=30)
    assert done.returncode == 1
    assert SAID not in done.stderr
