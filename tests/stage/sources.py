"""What the product's files say: who imports whom, and which strings are SQL."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOT_MODULES = {"service/gunicorn.conf.py"}
"""Read by gunicorn, not imported."""

SQL = re.compile(
    r"\s*(select|insert\s+into|update|delete\s+from|with|set\s+local|truncate|create|alter|drop|begin|commit|rollback)\b"
)
"""How a string begins that is SQL; a docstring ends with a full stop."""


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the product by its name."""
    paths = [path.relative_to(ROOT) for package in ("service", "expirer") for path in (ROOT / package).rglob("*.py")]
    return {
        ".".join(path.with_suffix("").parts).removesuffix(".__init__"): ast.parse((ROOT / path).read_text())
        for path in sorted(paths)
        if str(path) not in NOT_MODULES
    }


def imports(name: str) -> set[str]:
    """The modules that a module imports, wherever in its file it does so."""
    found: set[str] = set()
    for node in ast.walk(modules()[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            assert node.module
            # `from service import holding` imports a module, `from service.ledger.holding import hold` a name of one.
            found |= {f"{node.module}.{alias.name}" for alias in node.names} & modules().keys() or {node.module}
    return found


def reaches(name: str) -> set[str]:
    """The product's modules that are imported with a module, directly or not."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for imported in imports(waiting.pop()) & modules().keys() - found:
            found.add(imported)
            waiting.append(imported)
    return found


def statements() -> dict[str, str]:
    """Every SQL statement that has a name, `service.ledger.holding.LOCK_CUSTOMERS`, with its text."""
    found = {}
    for module, tree in modules().items():
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                for text in _sql(node.value):
                    found[f"{module}.{node.targets[0].id}"] = text
    return found


def nameless_sql() -> Iterator[tuple[str, str]]:
    """Module and text of SQL that is no module's constant."""
    named = set(statements().values())
    for module, tree in modules().items():
        for text in _sql(tree):
            if text not in named:
                yield module, text


def _sql(tree: ast.AST) -> Iterator[str]:
    """The strings below that are SQL; of one with values in it the constant parts."""
    parts = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    inner = {id(value) for node in parts for value in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(value.value) for value in node.values if isinstance(value, ast.Constant))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            text = node.value
        else:
            continue
        if SQL.match(text) and not text.strip().endswith("."):
            yield text
