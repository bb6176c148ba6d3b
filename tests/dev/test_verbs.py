"""The verbs of the Makefile: `make` lists each of them, and CONTRIBUTING.md names those of `.ci/run`."""

import re
import subprocess

from tests.stage.sources import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
REQUIRED = re.findall(r"^make (\w+)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)


def listed() -> list[str]:
    """The verbs in the output of `make`."""
    shown = subprocess.run(["make"], cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S607
    return [line.split()[1] for line in shown.stdout.splitlines() if line.startswith("make ")]


def test_make_lists_every_verb_also_the_required_ones() -> None:
    assert listed() == re.findall(r"^(\w+):", MAKEFILE, re.MULTILINE)
    assert set(REQUIRED) <= set(listed())


def test_no_verb_is_a_file() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert sorted(phony.split()) == sorted(listed())


def test_contributing_names_the_required_verbs() -> None:
    assert len(REQUIRED) > 5
    assert f"`make {' '.join(REQUIRED)}`" in (ROOT / "CONTRIBUTING.md").read_text()
