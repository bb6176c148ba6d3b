"""`python -m dev.prose [PATH ...]`: finds patterns that make our English hard to read, and long test names.

It reads Markdown, the chart, docstrings and the strings of Python modules, which become log lines, problem details,
metric help and command output. Code blocks and inline code are left out. Vale has such rules too, but it does not read
Python's strings.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXTS = {".md", ".yaml", ".yml", ".txt", ".tpl"}
LEFT_OUT = ("tests/", "load/tests/", "LICENSE", "dev/prose.py", ".github/")
TEST_NAME_CHARACTERS_MAX = 60

RULES = {
    "a clause without a noun: name the thing": re.compile(
        r"\bwhat(?:ever)? (?:is|are|was|were|has|have|had|can|could|may|must|comes?|goes|fails?|waits?|lives?|counts?"
        r"|looks?|others|somebody|nobody|we|it|they) \b(?![^.;:]*\?)"
        r"|(?:^|[.;:,(] |\b(?:for|to|by|of|from|with|and|or|is|as) )who (?!is who)\w+(?![^.;:]*\?)",
        re.IGNORECASE | re.MULTILINE,
    ),
    "name who it is: the customer, the client, another replica": re.compile(
        r"\b(?:nobody|somebody|whoever|whomever|everybody|someone|everyone)\b(?!'s business)", re.IGNORECASE
    ),
    "record, report, show or publish": re.compile(r"\b(?:tells?|told|telling)\b", re.IGNORECASE),
    "missing, invalid, or not a ...": re.compile(
        r"(?<!there )\b(?:is|are) (?:no (?!longer|more)|none\b)", re.IGNORECASE
    ),
    "again, automatically, for this long, at most": re.compile(
        r"\banew\b|\bby itself\b|\bso (?:long|many)\b", re.IGNORECASE
    ),
    "fix, repair or correct": re.compile(r"\bmend(?:s|ed|ing)?\b", re.IGNORECASE),
    "check, read or inspect": re.compile(r"\blook(?:s|ed|ing)? at\b|\blook(?:s|ed|ing)? whether\b", re.IGNORECASE),
    "is": re.compile(r"\b(?:stands|stood)\b(?!-)", re.IGNORECASE),
}
FENCE = re.compile(r"^( *)```.*?^\1```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`[^`\n]*`|\{\{.*?\}\}|<!--.*?-->", re.DOTALL)


def main() -> None:
    """Prints each finding as `file:line: rule: text`. Exits with 1 where there is one."""
    found = [line for path in files(sys.argv[1:]) for line in findings(path)]
    print("\n".join(found))  # noqa: T201 - a command's output
    sys.exit(bool(found))


def files(paths: list[str]) -> Iterator[Path]:
    """The files that git tracks below the paths, or in the whole repository."""
    listed = subprocess.run(  # noqa: S603 - git, on paths of the caller's own
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *paths],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in listed.splitlines():
        path = ROOT / name
        if path.suffix in TEXTS | {".py"} and path.is_file():
            yield path


def findings(path: Path) -> Iterator[str]:
    """What the rules find in one file."""
    name = path.relative_to(ROOT).as_posix()
    source = path.read_text()
    if path.suffix == ".py":
        yield from long_test_names(name, source)
    if name.startswith(LEFT_OUT):
        return
    for line, text in strings(source) if path.suffix == ".py" else [(1, source)]:
        blank = FENCE.sub(_blank, text) if path.suffix == ".md" else text
        prose = INLINE.sub(_blank, blank)
        for rule, pattern in RULES.items():
            for match in pattern.finditer(prose):
                start, end = max(match.start() - 30, 0), match.end() + 30
                context = " ".join(prose[start:end].split())
                yield f"{name}:{line + prose.count(chr(10), 0, match.start())}: {rule}: {context}"


def strings(source: str) -> Iterator[tuple[int, str]]:
    """Each string of a module that has words in it, with its line; an f-string's constant parts are joined.

    Strings without a blank are names, not prose.
    """
    tree = ast.parse(source)
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "X" for part in node.values]
            yield node.lineno, "".join(str(part) for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield from [(node.lineno, node.value)] if " " in node.value.strip() else []


def long_test_names(name: str, source: str) -> Iterator[str]:
    """Tests whose name has more than TEST_NAME_CHARACTERS_MAX characters."""
    rule = f"a test's name has at most {TEST_NAME_CHARACTERS_MAX} characters"
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith("test_"):
            continue
        if len(node.name) > TEST_NAME_CHARACTERS_MAX:
            yield f"{name}:{node.lineno}: {rule}: {node.name}"


def _blank(match: re.Match[str]) -> str:
    """The same lines without their text, so that a finding keeps its line."""
    return "x" + "\n" * match.group(0).count("\n")


if __name__ == "__main__":
    main()
