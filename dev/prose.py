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
TEXTS = {".lua", ".sql", ".toml", ".md", ".yaml", ".yml", ".txt", ".tpl"}
LEFT_OUT = ("tests/", "load/tests/", "LICENSE", "dev/prose.py", ".github/")
TEST_NAME_CHARACTERS_MAX = 60

RULES = {
    "a clause without a noun: name the thing": r"\bwhat(?:ever)? (?:is|are|was|were|has|have|had|can|could|may|must"
    r"|comes?|goes|fails?|waits?|lives?|counts?|looks?|others|somebody|nobody|we|it|they) \b(?![^.;:]*\?)"
    r"|(?:\A|[.;:|] )(?-i:What) (?!to\b|[^.;:]*\?)"
    r"|(?:\A|\n\n|\n\s*[-*] |[.;:,(|] |\b(?:for|to|by|of|from|with|and|or|is|as) )who (?!is who)\w+(?![^.;:]*\?)",
    "name who it is: the customer, the client, another replica": r"\b(?:nobody|somebody|whoever|whomever|everybody"
    r"|someone|everyone)\b(?!'s business)",
    "record, report, show or publish": r"\b(?:tells?|told|telling)\b",
    "missing, invalid, or not a ...": r"(?<!there\s)\b(?:is|are) (?:no (?!longer|more)|(?-i:none)\b)",
    "again, automatically, for this long, at most": r"\banew\b|\bby (?:itself|themselves)\b|\bso (?:long|many)\b",
    "fix, repair or correct": r"\bmend(?:s|ed|ing)?\b",
    "check, read or inspect": r"\blook(?:s|ed|ing)? (?:at|whether)\b",
    "is": r"\b(?:stands|stood)\b(?!-| for\b)",
    "current": r"\bpresent (?:time|state|checkout)\b",
    "down, unreachable or gone": r"\b(?:is|are|was|were|be|been|goes|went) away\b",
    "release or return": r"\b(?:gives?|gave|given|giving) (?:\w+ )?back\b",
}
PATTERNS = {rule: re.compile(pattern.replace(" ", r"[\s#]+"), re.IGNORECASE) for rule, pattern in RULES.items()}
"""A blank in a rule also matches the end of a line and the mark of a comment's next line."""
HEADING = re.compile(r"^(#+ )(?:What|Who)\b", re.MULTILINE)
"""A heading may be a question without its mark."""
FENCE = re.compile(r"^( *)```.*?^\1```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`[^`\n]*`|\{\{(?!-? ?/\*).*?\}\}|<!--.*?-->", re.DOTALL)


def main() -> None:
    """Prints each finding as `file:line: rule: text`. Exits with 1 if there is one."""
    found = [line for name in files(sys.argv[1:]) for line in findings(name, (ROOT / name).read_text())]
    print("\n".join(found))  # noqa: T201 - a command's output
    sys.exit(bool(found))


def files(paths: list[str]) -> Iterator[str]:
    """The names of the files with text that git tracks below the paths, or in the whole repository."""
    listed = subprocess.run(  # noqa: S603 - git, on paths of the caller's own
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *paths],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in listed.splitlines():
        if Path(name).suffix in TEXTS | {".py"} and (ROOT / name).is_file():
            yield name


def findings(name: str, source: str) -> Iterator[str]:
    """The findings of all rules in the text of one file."""
    is_python, is_markdown = name.endswith(".py"), name.endswith(".md")
    if is_python:
        yield from long_test_names(name, source)
    if name.startswith(LEFT_OUT):
        return
    for line, text in strings(source) if is_python else [(1, source)]:
        prose = INLINE.sub(_blank, HEADING.sub(r"\1x", FENCE.sub(_blank, text)) if is_markdown else text)
        for rule, pattern in PATTERNS.items():
            for match in pattern.finditer(prose):
                start = next(place for place in range(*match.span()) if prose[place].isalpha())
                context = " ".join(prose[max(start - 30, 0) : match.end() + 30].split())
                yield f"{name}:{line + prose.count(chr(10), 0, start)}: {rule}: {context}"


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
