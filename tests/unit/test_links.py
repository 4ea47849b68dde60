"""Links in Markdown pages lead to files and headings that exist; so does the glossary."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *ROOT.glob("*.md"),
    *(page for folder in ("docs", "kubernetes") for page in (ROOT / folder).rglob("*.md")),
]
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


def links(text: str) -> list[str]:
    """The targets of all links outside code that lead into the repository."""
    targets = LINK.findall(CODE.sub("", text))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    without_blocks = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in HEADING.findall(without_blocks)
    }


def broken(page: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    found = []
    for target in links(page.read_text()):
        path, _, anchor = unquote(target).partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            found.append(target)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    assert broken(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One `two`\n[a](page.md#one-two) [b](gone.md) [c](#gone) `[d](gone)`\n")
    assert broken(page) == ["gone.md", "#gone"]


def test_the_glossary_names_files_that_exist() -> None:
    rows = (ROOT / "docs" / "glossary.md").read_text().split("| --- |")[-1].splitlines()
    named = [row.split("|")[3].strip(" `") for row in rows if row.startswith("| ")]
    assert len(named) > 40
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_pages_name_tests_that_exist() -> None:
    tests = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")}
    tests |= {Path(path).name for path in tests}
    named = {
        (name, str(page.relative_to(ROOT)))
        for page in PAGES
        if page.name != "CHANGELOG.md"
        for name in re.findall(r"`((?:tests/[\w/]*)?test_\w+\.py)`", page.read_text())
    }
    assert len(named) > 10
    assert [found for found in sorted(named) if found[0] not in tests] == []
