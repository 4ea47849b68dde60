"""The calls of the port, each in its own few lines of docker-py."""

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, closing, suppress
from pathlib import Path
from typing import Any

from docker.errors import (
    APIError,
    DockerException,
    NotFound,
    create_api_error_from_http_exception,
)
from docker.types import CancellableStream
from docker.utils import parse_repository_tag
from msgspec.structs import replace
from requests.exceptions import HTTPError

from abaco_proto.errors import AbacoError
from abaco_worker.domain.containers import (
    Container,
    ContainerSpec,
    Endpoint,
    Image,
    Labelled,
    PullProgress,
    Usage,
)
from abaco_worker.domain.engine_errors import CannotStart, ImageRefused
from abaco_worker.engine import docker_disk_usage, docker_json
from abaco_worker.engine.docker_client import TIMEOUT_SECONDS, Client, translated, words
from abaco_worker.engine.docker_helper import ContainerChannel, opened
from abaco_worker.engine.docker_session import SCHEME
from abaco_worker.engine.output_pipe import Pipe

logger = logging.getLogger(__name__)

PIPE_BYTES = 256 * 1024
READ_BYTES = 64 * 1024

COMMAND_FAULTS = (126, 127)
"""The exit codes of a container whose command cannot be run; all else that fails leaves 128."""

CUT_SHORT = (ValueError, AttributeError)
"""What reading stumbles over when the stream is closed meanwhile."""


class DockerEngine:
    """Implements :class:`Engine`."""

    def __init__(self, environ: Mapping[str, str], *, capacity: int) -> None:
        """``environ`` says where the engine is (``DOCKER_HOST``); nothing is asked of it yet.

        ``capacity`` is how many containers run at once; the threads are counted by it.
        """
        self._client = Client(environ, capacity=capacity)
        self._pipes: set[Pipe] = set()
        self._walks = docker_disk_usage.Walks()
        self._sets_no_limits = False

    @property
    def location(self) -> str:
        """See :attr:`Engine.location`."""
        return self._client.location

    def close(self) -> None:
        """End what is being read; containers are left as they are."""
        for pipe in list(self._pipes):
            pipe.close()
        self._client.close()

    async def confinements(self) -> frozenset[str]:
        """See :meth:`Engine.confinements`."""
        return await self._client.call(lambda api: docker_json.confinements(api.info()))

    async def helper(self, host_id: str, program: Path, folder: Path) -> ContainerChannel:
        """A helper that starts launchers, in a container of its own.

        Raises:
            EngineFault, Unavailable: the engine refuses, or is away.
        """
        return await self._client.call(lambda api: opened(api, host_id, program, folder))

    # -- images

    async def find_image(self, image: str) -> Image:
        """See :meth:`Engine.find_image`."""

        def find(api: Any) -> Image:
            try:
                found = api.inspect_image(image)
            except APIError as error:
                if error.status_code == 400:
                    raise ImageRefused(f"image {image}: {words(error)}") from error
                raise
            return docker_json.image(found)

        return await self._client.call(find)

    async def pull_image(self, image: str, progress: Callable[[PullProgress], None]) -> None:
        """See :meth:`Engine.pull_image`."""
        repository, tag = parse_repository_tag(image)

        def pull(api: Any) -> None:
            layers: docker_json.Layers = {}
            try:
                for line in api.pull(repository, tag=tag or "latest", stream=True, decode=True):
                    if "error" in line:
                        raise ImageRefused(f"image {image}: pull failed: {line['error']}")
                    progress(docker_json.advance(layers, line))
            except APIError as error:
                raise ImageRefused(f"image {image}: pull failed: {words(error)}") from error

        await self._client.call(pull, self._client.streams)

    async def image_changes(self) -> AsyncGenerator[None, None]:
        """See :meth:`Engine.image_changes`."""
        async with aclosing(self._stream(self._read_image_changes)) as changes:
            async for _ in changes:
                yield None

    def _read_image_changes(self, pipe: Pipe) -> None:
        """Read the engine's events into the pipe, in a thread, as :meth:`_read_output` does."""
        changes = self._client.api.events(filters={"type": "image"})
        pipe.attach(lambda: _cut(changes))
        reading = pipe.put(b"\n")
        for line in changes if reading else ():
            if not pipe.put(line):
                break

    # -- containers

    async def create(self, spec: ContainerSpec) -> Container:
        """See :meth:`Engine.create`."""
        if self._sets_no_limits:
            spec = replace(spec, open_files=0)

        def create(api: Any) -> Container:
            try:
                made = api.create_container(**docker_json.creation(spec))
            except APIError as error:
                if error.status_code == 409:
                    return docker_json.container(api.inspect_container(spec.name))
                if "no command specified" in words(error).lower():
                    raise CannotStart(words(error), exit_code=127) from error
                raise
            return Container(container_id=made["Id"], image_id="", labels=spec.labels)

        return await self._client.call(create)

    async def start(self, container_id: str) -> None:
        """See :meth:`Engine.start`."""

        def start(api: Any) -> None:
            try:
                api.start(container_id)
            except NotFound:
                raise
            except APIError as error:
                state = api.inspect_container(container_id)["State"]
                if state["ExitCode"] in COMMAND_FAULTS:
                    why = state["Error"] or words(error)
                    raise CannotStart(why, exit_code=state["ExitCode"]) from error
                self._note_limits(words(error))
                raise

        await self._client.call(start)

    def _note_limits(self, said: str) -> None:
        """An engine without the right to raise limits, as one that is rootless, keeps its own."""
        if "rlimit" in said and not self._sets_no_limits:
            self._sets_no_limits = True
            logger.warning(
                "the engine may not set the limit on open files, so its own holds from now on: %s."
                " Lower ABACO_CONTAINER_OPEN_FILES, or set it to 0",
                said,
            )

    async def inspect(self, container_id: str) -> Container:
        """See :meth:`Engine.inspect`."""
        return await self._client.call(
            lambda api: docker_json.container(api.inspect_container(container_id))
        )

    async def wait(self, container_id: str, seconds: float) -> Container:
        """See :meth:`Engine.wait`."""

        def wait(api: Any) -> Container:
            try:
                api.wait(container_id, timeout=seconds)
            except APIError:
                raise
            except OSError:
                pass  # time is up; whether the engine is there at all, the next line tells
            return docker_json.container(api.inspect_container(container_id))

        return await self._client.call(wait, self._client.streams)

    async def endpoint(self, container_id: str) -> Endpoint | None:
        """See :meth:`Engine.endpoint`."""

        def look(api: Any) -> Endpoint | None:
            found = api.inspect_container(container_id)
            if docker_json.BRIDGE not in (found["NetworkSettings"].get("Networks") or {}):
                return None
            return docker_json.endpoint(found, api.inspect_network(docker_json.BRIDGE))

        return await self._client.call(look)

    async def usage(self, container_id: str) -> Usage:
        """See :meth:`Engine.usage`.

        The first answer comes at once, a further one with the engine's next round, each second.
        """
        return await self._client.call(
            lambda api: docker_json.usage(api.stats(container_id, stream=False, one_shot=True))
        )

    async def stop(self, container_id: str, grace_seconds: float) -> None:
        """See :meth:`Engine.stop`. The engine counts whole seconds."""
        seconds = math.ceil(grace_seconds)
        await self._client.call(lambda api: api.stop(container_id, timeout=seconds))

    async def written(self, container_id: str) -> int:
        """See :meth:`Engine.written`."""
        found = await self._client.call(lambda api: api.inspect_container(container_id))
        paths = docker_disk_usage.folders(found)
        if self.location.startswith(SCHEME) and docker_disk_usage.visible(paths):
            return await self._walks.bytes_below(paths)
        return await self._client.call(lambda api: _sizes(api, found))

    async def remove(self, container_id: str, *, patience_seconds: float = 0.0) -> None:
        """See :meth:`Engine.remove`."""

        def remove(api: Any) -> None:
            try:
                if patience_seconds > 0:
                    with suppress(OSError):  # time is up; what is away is so below, too
                        api.wait(container_id, timeout=patience_seconds)
                api.remove_container(container_id, force=True, v=True)
            except APIError as error:
                if error.status_code not in (404, 409):  # gone, or going
                    raise

        await self._client.call(remove)

    async def labelled(self, label: str, value: str) -> Sequence[Labelled]:
        """See :meth:`Engine.labelled`."""

        def find(api: Any) -> list[Labelled]:
            found = api.containers(all=True, filters={"label": [f"{label}={value}"]})
            return [docker_json.labelled(container) for container in found]

        return await self._client.call(find)

    # -- output

    async def output(self, container_id: str, *, follow: bool) -> AsyncGenerator[bytes, None]:
        """See :meth:`Engine.output`.

        json-file keeps text: bytes that are no UTF-8 come back as replacement characters, and a
        line comes when it is complete.
        """
        stream = self._stream(lambda pipe: self._read_output(container_id, follow, pipe))
        async with aclosing(stream) as pieces:
            async for data in pieces:
                yield data

    def _read_output(self, container_id: str, follow: bool, pipe: Pipe) -> None:  # noqa: FBT001
        """Read the output into the pipe, in a thread, to its end or until nobody reads it."""
        response = _logs(self._client.api, container_id, follow=follow)
        pieces = docker_json.demultiplexed(response.raw.stream(READ_BYTES))
        stream = CancellableStream(pieces, response)
        pipe.attach(lambda: _cut(stream))
        with closing(response):
            for data in stream:
                if not pipe.put(data):
                    break

    # -- streams

    async def _stream(self, read: Callable[[Pipe], None]) -> AsyncGenerator[bytes, None]:
        """What ``read`` puts into a pipe, in a thread."""
        loop = asyncio.get_running_loop()
        pipe = Pipe(loop, PIPE_BYTES)
        self._pipes.add(pipe)
        try:
            loop.run_in_executor(self._client.streams, _read, read, pipe)
            while data := await pipe.take():
                yield data
        finally:
            pipe.close()
            self._pipes.discard(pipe)


def _read(read: Callable[[Pipe], None], pipe: Pipe) -> None:
    try:
        with translated():
            read(pipe)
    except AbacoError as error:
        pipe.end(error)
    except CUT_SHORT:
        pass
    finally:
        pipe.end()


def _sizes(api: Any, found: Mapping[str, Any]) -> int:
    """How large what a container wrote is, as the engine says: its layer, and its volumes."""
    listed = api.containers(size=True, filters={"id": found["Id"]})
    written = sum(container.get("SizeRw") or 0 for container in listed)
    if names := docker_disk_usage.volumes(found):
        known = api.df().get("Volumes") or ()
        sizes = ((v.get("UsageData") or {}).get("Size", 0) for v in known if v["Name"] in names)
        written += sum(max(0, size) for size in sizes)  # -1 is unknown
    return int(written)


def _logs(api: Any, container_id: str, *, follow: bool) -> Any:
    """The response with the output, not read yet.

    Not docker-py's own ``logs``: that needs a second request, and leaves the connection of the
    first one open when the container is gone.
    """
    response = api.get(
        f"{api.base_url}/v{api.api_version}/containers/{container_id}/logs",
        params={"stdout": True, "stderr": True, "follow": follow},
        stream=True,
        timeout=(TIMEOUT_SECONDS, None),
    )
    try:
        response.raise_for_status()
    except HTTPError as error:
        with closing(response):
            create_api_error_from_http_exception(error)
    return response


def _cut(stream: Any) -> None:
    with suppress(OSError, ValueError, AttributeError, DockerException):  # over already
        stream.close()
