"""The table of a chart's values, from the comments that begin with `# --` above their keys."""

import json
from collections.abc import Iterator
from typing import Any

import yaml

MARK = "# --"


def values_table(text: str) -> str:
    """One line for each value that has a comment, or no comment in it: its path, its default and what it means."""
    rows = [f"| `{path}` | {default} | {meaning} |" for path, default, meaning in _rows(text)]
    return "\n".join(["| value | default | meaning |", "|---|---|---|", *rows])


def _rows(text: str) -> Iterator[tuple[str, str, str]]:
    lines = text.splitlines()
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    yield from _rows_below(root, yaml.safe_load(text), "", lines)


def _rows_below(
    node: yaml.MappingNode, values: dict[str, Any], prefix: str, lines: list[str]
) -> Iterator[tuple[str, str, str]]:
    for key, value in node.value:
        path, content = f"{prefix}{key.value}", values[key.value]
        meaning = _comment_above(lines, key.start_mark.line)
        if isinstance(value, yaml.MappingNode) and _is_explained_inside(value, meaning, lines):
            if meaning:
                yield path, "", meaning
            yield from _rows_below(value, content, f"{path}.", lines)
        else:
            yield path, f"`{json.dumps(content, ensure_ascii=False)}`", meaning


def _is_explained_inside(node: yaml.MappingNode, meaning: str, lines: list[str]) -> bool:
    """Whether its keys have lines of their own in the table: where one has a comment, or it has none itself."""
    return not node.flow_style and (not meaning or _has_comments(node, lines))


def _has_comments(node: yaml.MappingNode, lines: list[str]) -> bool:
    """Whether a key of it has one, however deep."""
    return any(
        _comment_above(lines, key.start_mark.line)
        or (isinstance(value, yaml.MappingNode) and _has_comments(value, lines))
        for key, value in node.value
    )


def _comment_above(lines: list[str], line: int) -> str:
    """The comment that ends above the line, from its mark on; empty where it has no mark."""
    said: list[str] = []
    for above in reversed(lines[:line]):
        comment = above.strip()
        if not comment.startswith("#"):
            return ""
        if comment.startswith(MARK):
            return " ".join([comment.removeprefix(MARK).strip(), *reversed(said)])
        said.append(comment.removeprefix("#").strip())
    return ""
