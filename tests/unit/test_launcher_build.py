"""The launcher's build: once per source, without warnings, and with the cause if it fails."""

import subprocess
from pathlib import Path

import pytest

import images
from abaco_worker.launcher import build
from launcher_stage import program


def test_it_compiles_without_a_warning(tmp_path: Path) -> None:
    program()
    words = build.command(build.compiler(), tmp_path / "launcher", "-Werror")
    assert subprocess.run(words, capture_output=True, check=True).stderr == b""


def test_it_needs_nothing_of_the_image() -> None:
    assert images._example().is_static(program().read_bytes())


def test_it_is_built_once(tmp_path: Path) -> None:
    program()
    built = build.build(tmp_path)
    assert built is not None
    before = built.stat()
    assert build.build(tmp_path) == built == build.find(tmp_path)
    assert built.stat().st_ino == before.st_ino
    assert [built] == list(tmp_path.iterdir())
    assert before.st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (None, "there is no C compiler"),
        ("echo /usr/bin/ld: cannot find -lc >&2; echo collect2 >&2; exit 1", "cannot find -lc"),
        ("exit 3", "no message"),
    ],
)
def test_without_what_it_needs_there_is_none_and_it_says_so(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    script: str | None,
    words: str,
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    if script:
        (tools / "cc").write_text(f"#!/bin/sh\n{script}\n")
        (tools / "cc").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.delenv("CC", raising=False)
    assert build.build(tmp_path / "built") is None
    assert build.find(tmp_path / "built") is None
    said = capsys.readouterr().err
    assert words in said
    assert "every run starts cold" in said


def test_the_command_prints_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program()
    monkeypatch.setattr("sys.argv", ["build", str(tmp_path)])
    build.main()
    assert Path(capsys.readouterr().out.strip()).parent == tmp_path
