"""The launchers' helper in a container, for a worker that has only the engine's socket.

The helper has what runc has: the host's processes and control groups, and every capability. A
process that may write to the engine's socket has these rights already (docs/adr/0031). The worker
talks to the helper over its standard streams, to which only the engine can attach. The engine
removes the container when the worker has ended and the last launcher has exited.
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
ALL_CAPABILITIES = ("ALL",)
REQUIRED_CAPABILITIES = ("SYS_ADMIN", "SYS_PTRACE")
"""The capabilities that the helper needs beside those of every container."""

ANSWER_BYTES = 4096
SECONDS = 10.0


class ContainerChannel:
    """Implements :class:`HelperChannel`."""

    def __init__(self, stream: Any) -> None:
        """``stream`` is docker-py's object for the attached standard streams."""
        self._stream = stream
        self._attached: socket.socket = stream._sock  # noqa: SLF001 - there is no public way
        self._attached.settimeout(SECONDS)

    async def ask(self, line: str) -> str:
        """See :meth:`HelperChannel.ask`."""
        return await asyncio.to_thread(self._ask, line)

    def close(self) -> None:
        """See :meth:`HelperChannel.close`."""
        with suppress(OSError):
            self._attached.shutdown(socket.SHUT_RDWR)
        self._stream._response.close()  # noqa: SLF001 - docker-py keeps the connection in it
        self._stream.close()
        self._attached.close()

    def _ask(self, line: str) -> str:
        self._attached.sendall(line.encode())
        answer = bytearray()
        while b"\n" not in answer:
            head = self._exactly(docker_json.FRAME.size)
            if not head:
                return ""
            _, length = docker_json.FRAME.unpack(head)
            if len(answer) + length > ANSWER_BYTES:
                raise OSError("the helper's answer is too long")
            answer += self._exactly(length)
        return answer.decode(errors="replace")

    def _exactly(self, count: int) -> bytes:
        """Return exactly ``count`` bytes; none if the stream ended before."""
        data = bytearray()
        while len(data) < count:
            more = self._attached.recv(count - len(data))
            if not more:
                return b""
            data += more
        return bytes(data)


def open_helper(client: Any, host_id: str, program: Path, folder: Path) -> ContainerChannel:
    """Start a helper in a container. Call it in a thread; errors are docker-py's."""
    image = f"{IMAGE}:{program.name}"
    try:
        client.inspect_image(image)
    except ImageNotFound:
        client.import_image_from_data(_image_of(program), repository=IMAGE, tag=program.name)
    try:
        return _start(client, helper_arguments(image, host_id, folder, ALL_CAPABILITIES))
    except APIError:  # the engine itself lacks some of them
        return _start(client, helper_arguments(image, host_id, folder, REQUIRED_CAPABILITIES))


def _start(client: Any, arguments: dict[str, Any]) -> ContainerChannel:
    created = client.create_container(**arguments)
    channel = ContainerChannel(client.attach_socket(created["Id"], params=ATTACHED))
    try:
        client.start(created["Id"])
    except BaseException:
        channel.close()
        with suppress(APIError):  # it may have exited and been removed
            client.remove_container(created["Id"], force=True)
        raise
    return channel


def helper_arguments(
    image: str, host_id: str, folder: Path, capabilities: Sequence[str]
) -> dict[str, Any]:
    """Return docker-py's arguments. The helper exits when its input is closed."""
    return {
        "image": image,
        "name": f"abaco-helper-{host_id}-{uuid4().hex[:8]}",
        "command": [PROGRAM, "helper", str(folder)],
        "labels": {LABEL: host_id},
        "stdin_open": True,
        "host_config": {
            "AutoRemove": True,
            "Binds": [f"{folder}:{folder}", f"{CGROUPS}:{CGROUPS}"],
            "CapAdd": list(capabilities),
            "CgroupnsMode": "host",
            "Init": False,
            "LogConfig": {"Type": "none"},
            "NetworkMode": "none",
            "PidMode": "host",
            "ReadonlyRootfs": True,
            "SecurityOpt": ["seccomp=unconfined", "apparmor=unconfined", "label=disable"],
        },
    }


def _image_of(program: Path) -> bytes:
    """Return an image, as a tar, that contains one program."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo(PROGRAM.lstrip("/"))
        entry.mode, entry.size = 0o755, program.stat().st_size
        with program.open("rb") as file:
            tar.addfile(entry, file)
    return archive.getvalue()
