"""docs/explanation/message-path.md names modules that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "message-path.md"
MODULE = re.compile(r"`((?:[a-z_]+/)+[a-z_]+\.(?:py|c))`")
FOLDER = re.compile(r"^`(services/[a-z_/]+/)`:$", re.MULTILINE)


def modules(text: str) -> list[str]:
    """The modules that a page names, from the root of the repository.

    A module is relative to the folder that its section begins with, or to the root.
    """
    found = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE):
        folder = FOLDER.search(section)
        for module in MODULE.findall(section):
            inside = folder is not None and not module.startswith("proto/")
            found.append(f"{folder[1]}{module}" if inside and folder else module)
    return found


def test_the_message_goes_where_the_page_says() -> None:
    named = modules(PAGE.read_text())
    assert len(set(named)) > 30
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_each_service_is_on_the_way() -> None:
    named = modules(PAGE.read_text())
    for service in ("api", "scheduler", "worker", "projector"):
        assert any(name.startswith(f"services/{service}/") for name in named), service


def test_a_module_that_is_gone_is_found() -> None:
    text = "## 1\n\n`services/api/abaco_api/`:\n\n`http/gone.py`, `proto/x/y.py`\n"
    assert modules(text) == ["services/api/abaco_api/http/gone.py", "proto/x/y.py"]
