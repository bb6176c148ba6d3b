"""`python -m dev.settings_table`: writes the README's table of settings, from the model; `--check` only looks."""

import sys
from pathlib import Path

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from service.settings import PREFIX, SECRETS_DIR, Settings

README = Path(__file__).parent.parent / "README.md"
ABOUT_SECRETS_DIR = "Folder whose files, such as `rowlock_database_url`, are settings too; a variable wins over a file"
BEGIN, END = "<!-- settings -->", "<!-- /settings -->"


def settings_table() -> str:
    """One line for each variable: its name, its default, and what it means with its bounds."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        lines.append(f"| `{PREFIX}{name.upper()}` | {_default(field)} | {field.description}{_bounds(field)} |")
    lines.append(f"| `{SECRETS_DIR}` | none | {ABOUT_SECRETS_DIR} |")
    return "\n".join(lines)


def table_in_readme() -> str:
    """What stands between the markers. Raises ValueError where a marker is missing."""
    text = README.read_text()
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip()


def main() -> None:
    """Replaces what stands between the markers; with `--check` exits with 1 where it would be something else."""
    if sys.argv[1:] == ["--check"]:
        if table_in_readme() != settings_table():
            sys.exit("README.md: the table of settings is not the model's: run make docs")
        return
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n{settings_table()}\n{END}{after}")


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
