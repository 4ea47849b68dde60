"""The images the worker's tests run on the real engine, built from the machine's busybox."""

import io
import shutil
import tarfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import docker
from docker.errors import APIError

from fake_engine import Program

CACHE = Path(__file__).resolve().parents[2] / "build" / "abaco_test"


class DockerYard:
    """Our images, and a host id of our own: whatever carries it is removed at the end."""

    image = "abaco-test/busybox:latest"
    unstartable = "abaco-test/unstartable:latest"

    def __init__(self) -> None:
        self.host_id = f"t-{uuid.uuid4().hex[:10]}"

    def message(self, program: Program) -> str:
        """A program as a script; the image runs ``$MSG`` in a shell."""
        said = "".join(f"\\0{byte:03o}" for byte in program.prints.encode())
        steps = [f"printf '%b' '{said}'" if said else "true"]
        if program.lines:
            steps.append(f"busybox seq 1 {program.lines}")
        if program.echoes:
            steps.append(f'printf %s "${program.echoes}"')
        if program.forever:
            steps.append("busybox sleep 3600")
        return "\n".join([*steps, f"exit {program.exit_code}"])


@contextmanager
def docker_yard() -> Iterator[DockerYard]:
    """Images built (the engine remembers them), containers gone afterwards."""
    client = docker.APIClient(version="auto")
    try:
        _build(client, DockerYard.image, r'CMD ["/bin/sh", "-c", "eval \"$MSG\""]')
        _build(client, DockerYard.unstartable, 'CMD ["/nope"]')
        yard = DockerYard()
        yield yard
        _clear(client, yard.host_id)
    finally:
        client.close()


def _clear(client: docker.APIClient, host_id: str) -> None:
    """Remove all containers of a host; the worker may be removing some of them."""
    label = {"label": [f"abaco.host_id={host_id}"]}
    deadline = time.monotonic() + 30
    while left := client.containers(all=True, filters=label):
        assert time.monotonic() < deadline, left
        for container in left:
            with suppress(APIError):
                client.remove_container(container["Id"], force=True)


def _build(client: docker.APIClient, tag: str, command: str) -> None:
    recipe = f"FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\n{command}\n".encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(_busybox(), "busybox")
        member = tarfile.TarInfo("Dockerfile")
        member.size = len(recipe)
        tar.addfile(member, io.BytesIO(recipe))
    packed.seek(0)
    lines = client.build(fileobj=packed, custom_context=True, tag=tag, rm=True, decode=True)
    errors = [line["error"] for line in lines if "error" in line]
    assert not errors, errors


def _busybox() -> Path:
    """The machine's, or the one the quickstart's image was made of."""
    usual = shutil.which("busybox", path="/bin:/usr/bin")
    places = [Path(usual)] if usual else [CACHE / "bin/busybox", CACHE / "usr/bin/busybox"]
    return next(place.resolve() for place in places if place.exists())
