"""Images for tests, built from a static busybox: no registry is needed."""

import importlib.util
import io
import tarfile
from pathlib import Path
from types import ModuleType

import docker

QUICK = "abaco-test/quick"
"""Prints ``got <message>`` and ends."""

SLOW = "abaco-test/slow"
"""Prints ``got <message>``, waits a second, prints ``done``."""

SCRIPTS = {
    QUICK: 'echo "got $MSG"',
    SLOW: 'echo "got $MSG"; sleep 1; echo done',
}


def build_all() -> None:
    """Build what the engine does not have."""
    client = docker.from_env()
    try:
        for tag, script in SCRIPTS.items():
            if not client.images.list(name=tag):
                build(client, tag, script)
    finally:
        client.close()


def build(client: docker.DockerClient, tag: str, script: str) -> None:
    """An image whose command is a shell script."""
    dockerfile = (
        "FROM scratch\n"
        "COPY busybox /bin/busybox\n"
        'RUN ["/bin/busybox", "--install", "-s", "/bin"]\n'
        f'CMD ["/bin/sh", "-c", {_quoted(script)}]\n'
    )
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        _add(tar, "Dockerfile", dockerfile.encode(), 0o644)
        _add(tar, "busybox", _example().busybox().read_bytes(), 0o755)
    context.seek(0)
    client.images.build(fileobj=context, custom_context=True, tag=tag, rm=True, network_mode="none")


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    tar.addfile(member, io.BytesIO(content))


def _quoted(script: str) -> str:
    return '"' + script.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _example() -> ModuleType:
    """The example's own builder, which knows where a static busybox comes from."""
    path = Path(__file__).parents[1] / "examples" / "abaco_test" / "build.py"
    spec = importlib.util.spec_from_file_location("abaco_test_build", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
