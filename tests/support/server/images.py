"""Images for tests, built from a static busybox: no registry is needed."""

import importlib.util
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import docker

QUICK = "abaco-test/quick"
"""Prints ``got <message>`` and ends."""

SLOW = "abaco-test/slow"
"""Prints ``got <message>``, waits a second, prints ``done``."""

NUMBERS = "abaco-test/numbers"
"""Counts to ``<message>``, a line each tenth of a second, until it is asked to end."""

STAMPS = "abaco-test/stamps"
"""Says ``<message>`` times, with a pause before each, how long the machine has been up."""

SLEEPING = "abaco-test/sleeping"
"""Sleeps for ``<message>`` seconds."""

SCRIPTS = {
    SLEEPING: 'sleep "$MSG"',
    QUICK: 'echo "got $MSG"',
    NUMBERS: "trap 'exit 143' TERM; for n in $(seq 1 $MSG); do echo $n; sleep 0.1; done",
    STAMPS: "for n in $(seq 1 $MSG); do sleep 0.7; read up idle </proc/uptime; echo $up; done",
    SLOW: 'echo "got $MSG"; sleep 1; echo done',
}

WITH_SHELL = """\
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
"""
"""The beginning of a recipe for an image with a shell and the usual small programs."""


def build_scripts() -> None:
    """The images whose command is a script; the engine remembers those that it has."""
    for tag, script in SCRIPTS.items():
        quoted = script.replace("\\", "\\\\").replace('"', '\\"')
        build(tag, f'{WITH_SHELL}CMD ["/bin/sh", "-c", "{quoted}"]\n', {})


def exists(tag: str) -> bool:
    """Whether the engine has an image."""
    client = docker.from_env().api
    try:
        return bool(client.images(name=tag))
    finally:
        client.close()


def build(tag: str, recipe: str, files: Mapping[str, bytes]) -> None:
    """An image from a Dockerfile, some files, and ``busybox``. The engine remembers each step."""
    context = {"Dockerfile": recipe.encode(), "busybox": busybox(), **files}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in context.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content))
    packed.seek(0)
    client = docker.from_env().api
    try:
        for line in client.build(
            fileobj=packed, custom_context=True, tag=tag, rm=True, network_mode="none", decode=True
        ):
            assert "error" not in line, line
    finally:
        client.close()


def busybox() -> bytes:
    """A static busybox, from where the example's own builder knows one."""
    program = _example().busybox()
    assert isinstance(program, Path)
    return program.read_bytes()


def _example() -> ModuleType:
    path = Path(__file__).parents[3] / "examples" / "abaco_test" / "build.py"
    spec = importlib.util.spec_from_file_location("abaco_test_build", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    build_scripts()
