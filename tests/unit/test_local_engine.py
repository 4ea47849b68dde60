"""The container engine: when it is installed, and the message if it is not."""

import os
import shutil
from pathlib import Path

import pytest

from abaco_local.servers import container_engine
from abaco_proto.errors import Unavailable


@pytest.fixture(autouse=True)
def _no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_engine, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ID=debian\n", True),
        ('ID="ubuntu"\nVERSION_ID="24.04"\n', True),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', True),
        ('ID="fedora"\n', False),
        ("", False),
    ],
)
def test_debian_and_its_derivatives_are_known(text: str, expected: bool) -> None:  # noqa: FBT001
    assert container_engine.is_debian(text) is expected


def test_an_engine_that_was_named_is_never_installed() -> None:
    with pytest.raises(Unavailable, match="DOCKER_HOST=unix:///nope"):
        container_engine.ensure(pytest.fail, {"DOCKER_HOST": "unix:///nope"})


def test_the_message_for_an_ordinary_account_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Unavailable, match="start Docker, or set DOCKER_HOST"):
        container_engine.ensure(pytest.fail, {})


def test_a_running_engine_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_engine, "is_available", lambda: True)
    container_engine.ensure(pytest.fail, {})


def test_a_bare_machine_gets_docker_and_its_control_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, ...]] = []
    said: list[str] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "dockerd" else name)
    monkeypatch.setattr(container_engine, "is_debian", lambda _: True)
    monkeypatch.setattr(container_engine, "CGROUPS", tmp_path)
    monkeypatch.setattr(container_engine, "SETTLE_SECONDS", 0)
    monkeypatch.setattr(container_engine, "_run", lambda *argv: ran.append(argv))
    monkeypatch.setattr(container_engine, "_start", lambda _: ran.append(("start",)))
    container_engine.ensure(said.append, {})
    assert [words[:2] for words in ran] == [
        ("apt-get", "update"),
        ("apt-get", "install"),
        ("start",),
    ]
    assert ran[1][-2:] == ("docker.io", "cgroupfs-mount")
    assert said == ["engine: installing docker.io and cgroupfs-mount with apt-get"]


def test_an_engine_that_does_not_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dockerd = tmp_path / "dockerd"
    dockerd.write_text("#!/bin/sh\necho starting\necho no iptables >&2\nexit 1\n")
    dockerd.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(container_engine, "DOCKERD_LOG", tmp_path / "dockerd.log")
    monkeypatch.setattr(container_engine, "SYSTEMD", tmp_path / "none")
    monkeypatch.setattr(container_engine, "CGROUPS", tmp_path)
    monkeypatch.setattr(container_engine, "_run", lambda *_: None)
    with pytest.raises(Unavailable, match="does not start: no iptables"):
        container_engine.ensure(lambda _: None, {})


@pytest.mark.parametrize(
    ("stat", "kept"),
    [
        ("4711 (dockerd) S 1 2", True),
        ("4711 (dockerd) Z 1 2", False),
        ("4711 (a) dockerd) S 1", False),
        ("4711 (python) S 1 2", False),
        (None, False),
    ],
    ids=str,
)
def test_a_stale_pid_file_is_removed(tmp_path: Path, stat: str | None, kept: bool) -> None:  # noqa: FBT001
    pid_file = tmp_path / "docker.pid"
    pid_file.write_text("4711\n")
    if stat is not None:
        (tmp_path / "proc" / "4711").mkdir(parents=True)
        (tmp_path / "proc" / "4711" / "stat").write_text(f"{stat}\n")
    container_engine.remove_stale_pid_file("dockerd", pid_file, tmp_path / "proc")
    assert pid_file.exists() == kept


def test_no_pid_file_is_nothing_to_remove(tmp_path: Path) -> None:
    container_engine.remove_stale_pid_file("dockerd", tmp_path / "docker.pid")
