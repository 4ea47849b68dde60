"""The adapter of the engine port for Docker's HTTP API.

Facts about the engine in these modules were observed with Docker 20.10.
"""

import asyncio
import logging
import math
import time
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
from abaco_worker.domain.engine_errors import CannotStart, ImageRefused
from abaco_worker.domain.engine_values import (
    BridgeEndpoint,
    Container,
    ContainerSpec,
    Image,
    LabelledContainer,
    PullProgress,
    ResourceUsage,
)
from abaco_worker.engine import docker_disk_usage, docker_json
from abaco_worker.engine.docker_client import (
    TIMEOUT_SECONDS,
    DockerClient,
    error_text,
    translate_errors,
)
from abaco_worker.engine.docker_helper import ContainerChannel, open_helper
from abaco_worker.engine.docker_session import SCHEME
from abaco_worker.engine.output_pipe import OutputPipe

logger = logging.getLogger(__name__)

PIPE_BYTES = 256 * 1024
READ_BYTES = 64 * 1024

COMMAND_FAULTS = (126, 127)
"""The exit codes of a container whose command cannot be run; other failures leave 128."""

CLOSED_WHILE_READING = (ValueError, AttributeError)
"""The errors of a read while another thread closes the stream."""


class DockerEngine:
    """Implements :class:`Engine`."""

    def __init__(self, environ: Mapping[str, str], *, capacity: int) -> None:
        """``environ`` may have ``DOCKER_HOST``. The engine is not called yet.

        ``capacity`` is the number of containers at once; it determines the number of threads.
        """
        self._client = DockerClient(environ, capacity=capacity)
        self._pipes: set[OutputPipe] = set()
        self._disk_usage = docker_disk_usage.DiskUsageWalker()
        self._cannot_set_limits = False

    @property
    def location(self) -> str:
        """See :attr:`Engine.location`."""
        return self._client.location

    def close(self) -> None:
        """End all reads; containers are not affected."""
        for pipe in list(self._pipes):
            pipe.close()
        self._client.close()

    async def confinements(self) -> frozenset[str]:
        """See :meth:`Engine.confinements`."""
        return await self._client.call(lambda api: docker_json.confinements(api.info()))

    async def helper(self, host_id: str, program: Path, folder: Path) -> ContainerChannel:
        """Start the launchers' helper in a container.

        Raises:
            EngineFault, Unavailable: the engine refuses, or is unavailable.
        """
        return await self._client.call(lambda api: open_helper(api, host_id, program, folder))

    # -- images

    async def find_image(self, image: str) -> Image:
        """See :meth:`Engine.find_image`."""

        def find(api: Any) -> Image:
            try:
                found = api.inspect_image(image)
            except APIError as error:
                if error.status_code == 400:
                    raise ImageRefused(f"image {image}: {error_text(error)}") from error
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
                raise ImageRefused(f"image {image}: pull failed: {error_text(error)}") from error

        await self._client.call(pull, self._client.streams)

    async def image_changes(self) -> AsyncGenerator[None, None]:
        """See :meth:`Engine.image_changes`."""
        async with aclosing(self._stream(self._read_image_changes)) as changes:
            async for _ in changes:
                yield None

    def _read_image_changes(self, pipe: OutputPipe) -> None:
        """Write the engine's events into the pipe; runs in a thread.

        The engine answers before it subscribes. So it is asked for the events from before the call,
        too, which it keeps for a while.
        """
        since = int(time.time()) - 1
        changes = self._client.api.events(since=since, filters={"type": "image"})
        pipe.attach(lambda: _close_stream(changes))
        reading = pipe.put(b"\n")
        for line in changes if reading else ():
            if not pipe.put(line):
                break

    # -- containers

    async def create(self, spec: ContainerSpec) -> Container:
        """See :meth:`Engine.create`."""
        if self._cannot_set_limits:
            spec = replace(spec, open_files=0)

        def create(api: Any) -> Container:
            try:
                made = api.create_container(**docker_json.create_arguments(spec))
            except APIError as error:
                if error.status_code == 409:
                    return docker_json.container(api.inspect_container(spec.name))
                if "no command specified" in error_text(error).lower():
                    raise CannotStart(error_text(error), exit_code=127) from error
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
                    why = state["Error"] or error_text(error)
                    raise CannotStart(why, exit_code=state["ExitCode"]) from error
                self._note_limits(error_text(error))
                raise

        await self._client.call(start)

    def _note_limits(self, error: str) -> None:
        """Set no limits from now on if the engine may not; a rootless engine may not."""
        if "rlimit" in error and not self._cannot_set_limits:
            self._cannot_set_limits = True
            logger.warning(
                "the engine may not set the limit on open files: %s. Containers have the engine's"
                " own limit from now on; lower ABACO_CONTAINER_OPEN_FILES, or set it to 0",
                error,
            )

    async def inspect(self, container_id: str) -> Container:
        """See :meth:`Engine.inspect`."""
        return await self._client.call(
            lambda api: docker_json.container(api.inspect_container(container_id))
        )

    async def wait(self, container_id: str, timeout_seconds: float) -> Container:
        """See :meth:`Engine.wait`."""

        def wait(api: Any) -> Container:
            try:
                api.wait(container_id, timeout=timeout_seconds)
            except APIError:
                raise
            except OSError:
                pass  # the timeout; if the engine is unavailable, the next call raises
            return docker_json.container(api.inspect_container(container_id))

        return await self._client.call(wait, self._client.streams)

    async def endpoint(self, container_id: str) -> BridgeEndpoint | None:
        """See :meth:`Engine.endpoint`."""

        def find(api: Any) -> BridgeEndpoint | None:
            found = api.inspect_container(container_id)
            if docker_json.BRIDGE not in (found["NetworkSettings"].get("Networks") or {}):
                return None
            return docker_json.endpoint(found, api.inspect_network(docker_json.BRIDGE))

        return await self._client.call(find)

    async def usage(self, container_id: str) -> ResourceUsage:
        """See :meth:`Engine.usage`.

        The engine answers the first call at once, and later calls with its next sample each second.
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
            return await self._disk_usage.bytes_below(paths)
        return await self._client.call(lambda api: _sizes(api, found))

    async def remove(self, container_id: str, *, exit_seconds: float = 0.0) -> None:
        """See :meth:`Engine.remove`."""

        def remove(api: Any) -> None:
            try:
                if exit_seconds > 0:
                    # A timeout raises; if the engine is unavailable, the next call raises, too.
                    with suppress(OSError):
                        api.wait(container_id, timeout=exit_seconds)
                api.remove_container(container_id, force=True, v=True)
            except APIError as error:
                if error.status_code not in (404, 409):  # removed, or being removed
                    raise

        await self._client.call(remove)

    async def labelled(self, label: str, value: str) -> Sequence[LabelledContainer]:
        """See :meth:`Engine.labelled`."""

        def find(api: Any) -> list[LabelledContainer]:
            found = api.containers(all=True, filters={"label": [f"{label}={value}"]})
            return [docker_json.labelled(container) for container in found]

        return await self._client.call(find)

    # -- output

    async def output(self, container_id: str, *, follow: bool) -> AsyncGenerator[bytes, None]:
        """See :meth:`Engine.output`.

        The log driver json-file stores text: bytes that are not UTF-8 become replacement
        characters, and a line is stored when it is complete.
        """
        stream = self._stream(lambda pipe: self._read_output(container_id, follow, pipe))
        async with aclosing(stream) as pieces:
            async for data in pieces:
                yield data

    def _read_output(self, container_id: str, follow: bool, pipe: OutputPipe) -> None:  # noqa: FBT001
        """Write the output into the pipe until the reader closes it; runs in a thread."""
        response = _logs(self._client.api, container_id, follow=follow)
        pieces = docker_json.demultiplexed(response.raw.stream(READ_BYTES))
        stream = CancellableStream(pieces, response)
        pipe.attach(lambda: _close_stream(stream))
        with closing(response):
            for data in stream:
                if not pipe.put(data):
                    break

    # -- streams

    async def _stream(self, read: Callable[[OutputPipe], None]) -> AsyncGenerator[bytes, None]:
        """Yield what ``read`` writes into a pipe in a thread."""
        loop = asyncio.get_running_loop()
        pipe = OutputPipe(loop, PIPE_BYTES)
        self._pipes.add(pipe)
        try:
            loop.run_in_executor(self._client.streams, _read, read, pipe)
            while data := await pipe.take():
                yield data
        finally:
            pipe.close()
            self._pipes.discard(pipe)


def _read(read: Callable[[OutputPipe], None], pipe: OutputPipe) -> None:
    try:
        with translate_errors():
            read(pipe)
    except AbacoError as error:
        pipe.end(error)
    except CLOSED_WHILE_READING:
        pass
    finally:
        pipe.end()


def _sizes(api: Any, found: Mapping[str, Any]) -> int:
    """Return the size of what a container wrote, as the engine reports it: layer and volumes."""
    listed = api.containers(size=True, filters={"id": found["Id"]})
    written = sum(container.get("SizeRw") or 0 for container in listed)
    if names := docker_disk_usage.volumes(found):
        known = api.df().get("Volumes") or ()
        sizes = ((v.get("UsageData") or {}).get("Size", 0) for v in known if v["Name"] in names)
        written += sum(max(0, size) for size in sizes)  # -1 is unknown
    return int(written)


def _logs(api: Any, container_id: str, *, follow: bool) -> Any:
    """Request the output, and return the response before its body is read.

    docker-py's own ``logs`` needs a second request, and leaks the connection of the first one if
    the container does not exist.
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


def _close_stream(stream: Any) -> None:
    with suppress(OSError, ValueError, AttributeError, DockerException):  # it is closed already
        stream.close()
