"""The pages: no link is broken, each page says whom it is for, and the map of the code is complete."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from fastapi.routing import APIRoute

from service.api.problems import PROBLEMS
from service.app import ROUTERS
from service.settings import PREFIX, Settings
from tests.stage.sources import ROOT

DOCS = ROOT / "docs"
OUTSIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "chart/README.md", "load/README.md")
PAGES = sorted([*DOCS.rglob("*.md"), *(ROOT / name for name in OUTSIDE)])
OURS = [page for page in PAGES if page.is_relative_to(DOCS) and "runbooks" not in page.parts]
GENERATED = {DOCS / "configuration.md", DOCS / "metrics.md"}

FENCE = re.compile(r"^( *)(```.*?)^\1```$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
DEFAULT = re.compile(r"`(ROWLOCK_[A-Z_]+)` \((\d[\d,.]*)[,)]")
PROBLEM = re.compile(r"^\| (\d+) \| (.*?) \|", re.MULTILINE)
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
MAP = re.compile(r"## The map\n(.*?)\n## ", re.DOTALL)
FOLDER = re.compile(r"`((?:\w+/)+)`")
FILE = re.compile(r"`((?:\w+/)*[\w.]+\.py)`")


def prose(page: Path) -> str:
    """The text of a page without its blocks of code."""
    return FENCE.sub("", page.read_text())


def links(page: Path) -> Iterator[str]:
    """The targets of the page's links within the repository."""
    for target in LINK.findall(CODE.sub("code", prose(page))):
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors(page: Path) -> set[str]:
    """The anchors of the page's headings, as GitHub makes them."""
    found: list[str] = []
    for heading in HEADING.findall(prose(page)):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
        count = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other) is not None for other in found)
        found.append(f"{slug}-{count}" if count else slug)
    return set(found)


def broken_links(page: Path) -> Iterator[str]:
    """The links to files or anchors that are missing."""
    for target in links(page):
        path, _, anchor = unquote(target).partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            yield target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_and_anchors_exist(page: Path) -> None:
    assert list(broken_links(page)) == []


def test_links_are_found() -> None:
    assert "concepts/holds.md#what-pay-means" in list(links(DOCS / "tutorial.md"))
    assert "the-lock-order" in anchors(DOCS / "concepts" / "holds.md")


@pytest.mark.parametrize("page", sorted(set(OURS) - GENERATED), ids=lambda page: str(page.relative_to(DOCS)))
def test_a_page_says_first_whom_it_is_for(page: Path) -> None:
    title, blank, first = page.read_text().splitlines()[:3]
    assert title.startswith("# ")
    assert not blank
    assert first.startswith("For ")


def reached(page: Path, clicks: int) -> set[Path]:
    """The pages that a reader reaches from a page within so many clicks."""
    found = {page}
    for _ in range(clicks):
        found |= {
            (start.parent / target.partition("#")[0]).resolve()
            for start in found
            if start.suffix == ".md" and start.is_file()
            for target in links(start)
        }
    return found


def test_every_page_is_two_clicks_from_the_readme() -> None:
    assert set(PAGES) <= reached(ROOT / "README.md", clicks=2)


def code_map() -> str:
    """The section of the architecture that names the packages."""
    found = MAP.search((DOCS / "architecture.md").read_text())
    assert found
    return found.group(1)


@pytest.mark.parametrize("folder", ["service", "expirer"])
def test_the_map_of_the_code_names_every_package(folder: str) -> None:
    packages = {f"{file.parent.relative_to(ROOT)}/" for file in (ROOT / folder).glob("*/__init__.py")}
    assert packages
    assert packages <= set(FOLDER.findall(code_map()))


def test_the_map_of_the_code_names_only_existing_files() -> None:
    text = code_map()
    named = [*FOLDER.findall(text), *FILE.findall(text)]
    assert len(named) > 20
    places = (ROOT, ROOT / "service", ROOT / "expirer", ROOT / "tests")
    assert [name for name in named if not any((place / name).exists() for place in places)] == []


def test_the_readme_lists_every_route() -> None:
    listed = re.findall(r"`([A-Z]+) (/\S+)`", (ROOT / "README.md").read_text())
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    served = {(method, route.path) for route in routes for method in route.methods or ()}
    assert set(listed) == served - {("GET", "/livez"), ("GET", "/readyz")}


def test_the_api_guide_lists_every_problem() -> None:
    rows = PROBLEM.findall((DOCS / "api.md").read_text())
    listed = {(int(status), name) for status, names in rows for name in re.findall(r"`([a-z-]+)`", names)}
    assert listed == {(problem.status, problem.name) for problem in PROBLEMS.values()}


FIELDS = {f"{PREFIX}{name.upper()}": field for name, field in Settings.model_fields.items()}
ELSEWHERE = re.compile(r"ROWLOCK_(SECRETS_DIR|DATA_DIR|PUBLISH|SMOKE_\w+|E2E_\w+|INGRESS_PORT|OUTER_PROXIES)")
"""Variables of the commands and scripts, not of the settings."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_defaults_on_a_page_are_those_of_the_settings(page: Path) -> None:
    pairs = [found for found in DEFAULT.findall(page.read_text()) if not ELSEWHERE.fullmatch(found[0])]
    assert [(name, text) for name, text in pairs if float(text.replace(",", "")) != float(FIELDS[name].default)] == []


def test_every_setting_on_a_page_exists() -> None:
    named = {name for page in PAGES for name in re.findall(r"ROWLOCK_[A-Z_\d]+[A-Z]", page.read_text())}
    assert {name for name in named if not ELSEWHERE.fullmatch(name)} <= FIELDS.keys()
