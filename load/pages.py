"""Pages whose figures a command writes between two comments. The text around them is written by hand."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "load" / "results"
END = "<!-- end of figures -->\n"


@dataclass(frozen=True, slots=True)
class Page:
    """A page below `docs`, and the module that writes its figures."""

    name: str
    module: str

    @property
    def path(self) -> Path:
        """The file."""
        return ROOT / "docs" / self.name

    @property
    def begin(self) -> str:
        """The line before the figures."""
        return f"<!-- figures: python -m {self.module} -->\n"

    def with_figures(self, text: str, figures: str) -> str:
        """The page's text with these figures between the markers. Raises ValueError where a marker is missing."""
        before, _, rest = text.partition(self.begin)
        _, marker, after = rest.partition(END)
        if not marker:
            raise ValueError(f"docs/{self.name} needs the lines {self.begin.strip()} and {END.strip()}")
        return before + self.begin + figures + END + after

    def write(self, figures: str) -> None:
        """Writes the page. With `--check` exits with 1 where the page differs."""
        text = self.path.read_text()
        made = self.with_figures(text, figures)
        if sys.argv[1:] != ["--check"]:
            self.path.write_text(made)
        elif text != made:
            sys.exit(f"docs/{self.name} differs from load/results: run make docs")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)
