"""The images of the worker's tests with the real engine, built from the host's busybox."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import docker
from docker.errors import APIError

import images
from fake_engine import Program

RECIPE = "FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\n"
EVAL = r'CMD ["/bin/sh", "-c", "eval \"$MSG\""]'


class DockerYard:
    """The images, and a unique host id; containers with that id are removed at the end."""

    image = "abaco-test/busybox:latest"
    unstartable = "abaco-test/unstartable:latest"

    def __init__(self) -> None:
        self.host_id = f"t-{uuid.uuid4().hex[:10]}"

    def message(self, program: Program) -> str:
        """Return a program as a script; the image runs ``$MSG`` in a shell."""
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
    """Build the images (the engine caches them), and remove the containers afterwards."""
    client = docker.APIClient(version="auto")
    try:
        images.build(DockerYard.image, f"{RECIPE}{EVAL}\n", {})
        images.build(DockerYard.unstartable, f'{RECIPE}CMD ["/nope"]\n', {})
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
