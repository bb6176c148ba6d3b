"""`python -m dev.settings_table`: writes `docs/configuration.md` from the model of the settings; `--check` compares."""

import re
import sys
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from service.settings import PREFIX, SECRETS_DIR, Settings

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"
HEAD = f"""# Configuration

For operators: every setting of the API and the expirer, with its default and its bounds.

Each setting is an environment variable. It can also be a file in the folder that `{SECRETS_DIR}` names: the file
`rowlock_database_url` gives `{PREFIX}DATABASE_URL`. A variable wins over a file. Only `{PREFIX}DATABASE_URL` and
`{PREFIX}TOKEN_SECRET` are required. A process that finds an invalid value names all invalid variables and exits.

The names of settings end in their unit. `make docs` generates this page from `service/settings`.
"""


def page() -> str:
    """A section with a table for each group."""
    return HEAD + "".join(_section(group) for group in Settings.__bases__ if group is not BaseSettings)


def main() -> None:
    """Writes the page; with `--check` exits with 1 where the page differs."""
    if sys.argv[1:] != ["--check"]:
        PAGE.write_text(page())
    elif not PAGE.is_file() or PAGE.read_text() != page():
        sys.exit("docs/configuration.md differs from the model of the settings: run make docs")


def _section(group: type[BaseModel]) -> str:
    first, *words = re.split(r"(?<=[a-z])(?=[A-Z][a-z])", group.__name__)
    title = " ".join([first, *(word.lower() for word in words)])
    about = " ".join((group.__doc__ or "").split())
    rows = [_row(name, field) for name, field in group.model_fields.items()]
    return "\n".join([f"\n## {title}\n", f"{about}\n", "| variable | default | meaning |", "|---|---|---|", *rows, ""])


def _row(name: str, field: FieldInfo) -> str:
    return f"| `{PREFIX}{name.upper()}` | {_default(field)} | {field.description}{_bounds(field)} |"


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    if field.default is None:
        return "none"
    if field.default == ():
        return "empty"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def _bounds(field: FieldInfo) -> str:
    """` (1 to 60)` where the value is a number with bounds."""
    least, most = (next((getattr(m, b) for m in field.metadata if hasattr(m, b)), None) for b in ("ge", "le"))
    return "" if least is None or most is None else f" ({least} to {most})"


if __name__ == "__main__":
    main()
