"""A helper in a container, for a worker that has only the engine's socket.

It has what runc has: the machine's processes and control groups, and every capability. That is no
more than the socket gives whoever may write to it (docs/adr/0031). It is talked to over its
standard streams, which only the engine can attach to, and is removed when the worker is gone and
the last of its launchers has ended.
"""

import asyncio
import io
import socket
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from docker.errors import APIError, ImageNotFound

from abaco_worker.engine import docker_json

IMAGE = "abaco-launcher"
PROGRAM = "/launcher"
LABEL = "abaco.helper"
CGROUPS = "/sys/fs/cgroup"
ATTACHED = {"stdin": 1, "stdout": 1, "stderr": 0, "stream": 1}
EVERY = ("ALL",)
NEEDED = ("SYS_ADMIN", "SYS_PTRACE")
"""Beside those that every container has, which programs are given."""

ANSWER_BYTES = 4096
SECONDS = 10.0


class ContainerChannel:
    """Implements :class:`Channel`."""

    def __init__(self, stream: Any) -> None:
        """``stream`` is docker-py's, of its standard streams."""
        self._stream = stream
        self._attached: socket.socket = stream._sock  # noqa: SLF001 - there is no other way to it
        self._attached.settimeout(SECONDS)

    async def ask(self, line: str) -> str:
        """See :meth:`Channel.ask`."""
        return await asyncio.to_thread(self._ask, line)

    def close(self) -> None:
        """See :meth:`Channel.close`."""
        with suppress(OSError):
            self._attached.shutdown(socket.SHUT_RDWR)
        self._stream._response.close()  # noqa: SLF001 - docker-py keeps the connection in it
        self._stream.close()
        self._attached.close()

    def _ask(self, line: str) -> str:
        self._attached.sendall(line.encode())
        said = bytearray()
        while b"\n" not in said:
            head = self._exactly(docker_json.FRAME.size)
            if not head:
                return ""
            _, length = docker_json.FRAME.unpack(head)
            if len(said) + length > ANSWER_BYTES:
                raise OSError("the helper's answer is too long")
            said += self._exactly(length)
        return said.decode(errors="replace")

    def _exactly(self, count: int) -> bytes:
        """So many bytes; none when it ended before."""
        data = bytearray()
        while len(data) < count:
            more = self._attached.recv(count - len(data))
            if not more:
                return b""
            data += more
        return bytes(data)


def opened(client: Any, host_id: str, program: Path, folder: Path) -> ContainerChannel:
    """A helper in a container; to be called in a thread.

    Errors are docker-py's.
    """
    image = f"{IMAGE}:{program.name}"
    try:
        client.inspect_image(image)
    except ImageNotFound:
        client.import_image_from_data(_packed(program), repository=IMAGE, tag=program.name)
    try:
        return _started(client, creation(image, host_id, folder, EVERY))
    except APIError:  # an engine that lacks some itself
        return _started(client, creation(image, host_id, folder, NEEDED))


def _started(client: Any, told: dict[str, Any]) -> ContainerChannel:
    made = client.create_container(**told)
    channel = ContainerChannel(client.attach_socket(made["Id"], params=ATTACHED))
    try:
        client.start(made["Id"])
    except BaseException:
        channel.close()
        with suppress(APIError):  # it may be gone already
            client.remove_container(made["Id"], force=True)
        raise
    return channel


def creation(image: str, host_id: str, folder: Path, rights: Sequence[str]) -> dict[str, Any]:
    """What Docker is told, in docker-py's words. With its input its work ends."""
    return {
        "image": image,
        "name": f"abaco-helper-{host_id}-{uuid4().hex[:8]}",
        "command": [PROGRAM, "helper", str(folder)],
        "labels": {LABEL: host_id},
        "stdin_open": True,
        "host_config": {
            "AutoRemove": True,
            "Binds": [f"{folder}:{folder}", f"{CGROUPS}:{CGROUPS}"],
            "CapAdd": list(rights),
            "CgroupnsMode": "host",
            "Init": False,
            "LogConfig": {"Type": "none"},
            "NetworkMode": "none",
            "PidMode": "host",
            "ReadonlyRootfs": True,
            "SecurityOpt": ["seccomp=unconfined", "apparmor=unconfined", "label=disable"],
        },
    }


def _packed(program: Path) -> bytes:
    """An image that is one program."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo(PROGRAM.lstrip("/"))
        entry.mode, entry.size = 0o755, program.stat().st_size
        with program.open("rb") as file:
            tar.addfile(entry, file)
    return packed.getvalue()
