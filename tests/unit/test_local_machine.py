"""The messages of `make up` about missing requirements are those of the documentation."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from abaco_local.servers import container_engine
from abaco_local.servers.machine_check import GIBIBYTE, engine_shortcomings, host_shortcomings
from abaco_proto.errors import Unavailable

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "supported-machines.md").read_text()
GOOD = {
    "OSType": "linux",
    "SecurityOptions": ["name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"],
    "MemoryLimit": True,
    "CpuCfsQuota": True,
    "PidsLimit": True,
}
FOLDER = Path("/srv/abaco/.abaco")


def on_the_page(line: str) -> bool:
    """Whether the page shows a line; what differs from machine to machine is ``…`` there."""
    shown = [quoted for quoted in re.findall(r"`([^`\n]+)`", PAGE) if " " in quoted]
    patterns = [".+".join(map(re.escape, quoted.split("…"))) for quoted in shown]
    return any(re.fullmatch(pattern, line) for pattern in patterns)


def test_a_sufficient_machine_gets_no_message() -> None:
    assert host_shortcomings(2 * GIBIBYTE, 2 * GIBIBYTE, FOLDER) == []
    assert engine_shortcomings(GOOD) == []
    assert engine_shortcomings({}) == []


@pytest.mark.parametrize(
    ("memory", "free", "line"),
    [
        (1.4, 9, "machine     1.4 GiB of memory; 2.0 GiB are needed"),
        (9, 0.5, f"machine     0.5 GiB free on the disk of {FOLDER}; 2.0 GiB are needed"),
    ],
)
def test_too_little_memory_or_disk_is_reported(memory: float, free: float, line: str) -> None:
    assert host_shortcomings(int(memory * GIBIBYTE), int(free * GIBIBYTE), FOLDER) == [line]
    assert on_the_page(line)


@pytest.mark.parametrize(
    ("info", "line"),
    [
        (
            {"SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless", "name=cgroupns"]},
            (
                "engine      runs rootless, which is not supported; "
                "see docs/reference/supported-machines.md"
            ),
        ),
        (
            {"OSType": "windows"},
            (
                "engine      runs windows containers, not Linux ones; "
                "see docs/reference/supported-machines.md"
            ),
        ),
        (
            {"MemoryLimit": False, "PidsLimit": False},
            (
                "engine      cannot limit memory, processes of a container; "
                "see docs/reference/supported-machines.md"
            ),
        ),
    ],
)
def test_an_engine_that_is_not_supported_is_reported(info: dict[str, object], line: str) -> None:
    assert engine_shortcomings({**GOOD, **info}) == [line]
    assert on_the_page(line)


def test_no_engine_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_engine, "is_available", lambda: False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for environ in ({}, {"DOCKER_HOST": "unix:///nope"}):
        with pytest.raises(Unavailable) as refused:
            container_engine.ensure(pytest.fail, environ)
        assert on_the_page(f"abaco: {refused.value}")


@pytest.mark.parametrize("release", ["ID=fedora\n", ""])
def test_an_engine_is_installed_on_debian_alone(
    release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "os-release").write_text(release)
    monkeypatch.setattr(container_engine, "is_available", lambda: False)
    monkeypatch.setattr(container_engine, "OS_RELEASE", tmp_path / "os-release")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(Unavailable) as refused:
        container_engine.ensure(pytest.fail, {})
    assert on_the_page(f"abaco: {refused.value}")


class SetUp:
    """``local/setup`` on a machine that has these programs alone."""

    def __init__(self, folder: Path) -> None:
        self._programs = folder / "bin"
        self._programs.mkdir()
        self._venv = folder / "venv"
        for name in ("bash", "dirname", "id", "cat", "sha256sum", "flock", "env"):
            found = shutil.which(name)
            assert found is not None
            (self._programs / name).symlink_to(found)

    def program(self, name: str, script: str) -> None:
        """Add one, or replace it."""
        path = self._programs / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def run(self) -> str:
        """The line that it ends with."""
        environ = {"PATH": str(self._programs), "VENV": str(self._venv)}
        command = [str(self._programs / "bash"), str(ROOT / "local" / "setup"), "run"]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 1, done
        return done.stderr.strip().splitlines()[-1]


@pytest.fixture
def set_up(tmp_path: Path) -> SetUp:
    set_up = SetUp(tmp_path)
    set_up.program("uname", 'case "$1" in -s) echo Linux ;; -m) echo x86_64 ;; esac')
    return set_up


def test_no_python_is_reported(set_up: SetUp) -> None:
    line = set_up.run()
    assert "Python 3.11" in line
    assert on_the_page(line)


def test_another_system_is_reported(set_up: SetUp) -> None:
    set_up.program("uname", 'case "$1" in -s) echo Darwin ;; -m) echo arm64 ;; esac')
    line = set_up.run()
    assert "Darwin" in line
    assert on_the_page(line)


def test_another_c_library_is_reported(set_up: SetUp) -> None:
    set_up.program("python3", 'case "$2" in *libc_ver*) echo musl; exit 1 ;; esac')
    line = set_up.run()
    assert "glibc" in line
    assert on_the_page(line)
