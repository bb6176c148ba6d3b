"""What the Makefile lists, what `.ci/run` asks for, and what CONTRIBUTING.md says of both."""

import re
import subprocess

from tests.stage.sources import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
ASKED_FOR = re.findall(r"^make (\w+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)


def listed() -> list[str]:
    """The verbs that `make` alone shows."""
    shown = subprocess.run(["make"], cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S607
    return [line.split()[1] for line in shown.stdout.splitlines() if line.startswith("make ")]


def test_make_lists_every_verb_and_each_that_is_asked_for() -> None:
    assert listed() == re.findall(r"^(\w+):", MAKEFILE, re.MULTILINE)
    assert set(ASKED_FOR) <= set(listed())


def test_no_verb_is_a_file() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert sorted(phony.split()) == sorted(listed())


def test_contributing_names_what_is_asked_for() -> None:
    assert len(ASKED_FOR) > 5
    assert f"`make {' '.join(ASKED_FOR)}`" in (ROOT / "CONTRIBUTING.md").read_text()
