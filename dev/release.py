"""The steps of a release that need no network. The version is `service.VERSION`; package and chart copy it.

python -m dev.release version                     prints it; fails where package or chart have another one
python -m dev.release write                       writes it into pyproject.toml and chart/Chart.yaml
python -m dev.release notes                       prints its section of CHANGELOG.md
python -m dev.release chart FOLDER HOME IMAGE     copies the chart, with these addresses
"""

import re
import shutil
import sys
from pathlib import Path

from service import VERSION

ROOT = Path(__file__).parent.parent
PLACES = {
    "pyproject.toml": r'(?m)^version = "(.*)"$',
    "chart/Chart.yaml": r"(?m)^(?:version|appVersion): (.*)$",
}
"""Files that repeat the version, and where."""


class ReleaseError(Exception):
    """The release can't be made, for the reason given."""


def version() -> str:
    """The version, if every place has it."""
    for name, pattern in PLACES.items():
        if (found := set(re.findall(pattern, (ROOT / name).read_text()))) != {VERSION}:
            raise ReleaseError(f"{name} has {', '.join(sorted(found))}, not {VERSION}: run python -m dev.release write")
    return VERSION


def write() -> None:
    """Writes the version into every place."""
    for name, pattern in PLACES.items():
        path = ROOT / name
        path.write_text(re.sub(pattern, lambda found: found[0].replace(found[1], VERSION), path.read_text()))


def notes(changelog: str, wanted: str) -> str:
    """The text below the heading of a version, up to the next version."""
    found = re.search(rf"(?ms)^## \[?{re.escape(wanted)}\]?(?: .*?)?$(.*?)(?=^## |\Z)", changelog)
    if not found or not (text := found[1].strip()):
        raise ReleaseError(f"CHANGELOG.md has no section {wanted}: rename Unreleased")
    return text + "\n"


def chart(folder: Path, home: str, image: str) -> None:
    """Copies the chart as it is published: `home` leads to the runbooks, and the image is the release's."""
    shutil.copytree(ROOT / "chart", folder)
    about, values = folder / "Chart.yaml", folder / "values.yaml"
    about.write_text(f"{about.read_text()}home: {home}\nsources: [{home}]\n")
    made, count = re.subn(r"(?m)^  repository: rowlock$", f"  repository: {image}", values.read_text())
    if count != 1:
        raise ReleaseError("values.yaml does not name the image's repository in one line")
    values.write_text(made)


def main(verb: str, *arguments: str) -> None:
    """Runs one step."""
    match verb:
        case "version":
            sys.stdout.write(f"{version()}\n")
        case "write":
            write()
        case "notes":
            sys.stdout.write(notes((ROOT / "CHANGELOG.md").read_text(), VERSION))
        case "chart":
            chart(Path(arguments[0]), *arguments[1:])
        case _:
            raise ReleaseError(__doc__ or verb)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except ReleaseError as error:
        sys.exit(f"rowlock: {error}")
