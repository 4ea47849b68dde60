"""The quickstart waits for late results, and fails without one."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from abaco_local.cli import quickstart
from abaco_proto.errors import Unavailable

ROOT = Path(__file__).parents[2]
UNAVAILABLE = {"status": "error", "error": "unavailable", "msg": "Postgres does not answer"}
REFUSED = {"status": "error", "error": "unknown", "msg": "there is no such actor", "result": None}


def actor(status: str) -> dict[str, Any]:
    return {"status": "success", "msg": "", "result": {"status": status}}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The answers of the API, in order."""
    coming: list[dict[str, Any]] = []
    monkeypatch.setattr(quickstart.Request, "send", lambda _: coming.pop(0))
    monkeypatch.setattr(quickstart, "POLL_SECONDS", 0)
    return coming


def test_a_query_that_times_out_is_sent_again(answers: list[dict[str, Any]]) -> None:
    answers += [actor("SUBMITTED"), UNAVAILABLE, UNAVAILABLE, actor("READY")]
    quickstart.wait_for_status(quickstart.Request("http://x/actors/foo_0"), "READY", 60)
    assert answers == []


@pytest.mark.parametrize("answer", [REFUSED, actor("ERROR")])
def test_an_answer_that_will_not_change_is_the_end(
    answers: list[dict[str, Any]], answer: dict[str, Any]
) -> None:
    answers += [answer]
    with pytest.raises(Unavailable):
        quickstart.wait_for_status(quickstart.Request("http://x/actors/foo_0"), "READY", 60)


def test_what_stays_unavailable_is_the_end(answers: list[dict[str, Any]]) -> None:
    answers += [UNAVAILABLE]
    with pytest.raises(Unavailable, match="Postgres does not answer"):
        quickstart.wait_for_status(quickstart.Request("http://x/actors/foo_0"), "READY", -1)


def programs(path: Path) -> Iterator[str]:
    """The first words of the lists in a file: of some of them, a program that is run."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.List | ast.Tuple) and node.elts:
            first = node.elts[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value


def test_neither_the_tests_nor_the_quickstart_need_the_programs_of_docker_or_curl() -> None:
    """On Debian 13 ``docker`` is a package of its own, which an engine does not bring."""
    files = [
        path for folder in ("tests", "local", "examples") for path in ROOT.glob(f"{folder}/**/*.py")
    ]
    assert len(files) > 200
    assert {path for path in files if {"docker", "curl"} & {*programs(path)}} == {
        ROOT / "local" / "abaco_local" / "cli" / "quickstart.py"  # where there is one
    }
