"""The container engine, watched: how long its calls take, and which fail."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractContextManager

from abaco_worker.domain.containers import (
    Container,
    ContainerSpec,
    Endpoint,
    Image,
    Labelled,
    PullProgress,
    Usage,
)
from abaco_worker.engine.engine_port import Engine

CallTimer = Callable[[str], AbstractContextManager[None]]


class WatchedEngine:
    """Implements :class:`Engine` by another one, and counts what it does.

    What lasts as long as a container or the worker runs (``wait``, ``output``, ``image_changes``)
    says nothing of the engine and is only passed on.
    """

    def __init__(self, engine: Engine, call: CallTimer) -> None:
        """``call`` is entered for each call of ``engine``, with the name of the method."""
        self._engine = engine
        self._call = call

    @property
    def location(self) -> str:
        """See :attr:`Engine.location`."""
        return self._engine.location

    async def confinements(self) -> frozenset[str]:
        """See :meth:`Engine.confinements`."""
        with self._call("confinements"):
            return await self._engine.confinements()

    async def find_image(self, image: str) -> Image:
        """See :meth:`Engine.find_image`."""
        with self._call("find_image"):
            return await self._engine.find_image(image)

    async def pull_image(self, image: str, progress: Callable[[PullProgress], None]) -> None:
        """See :meth:`Engine.pull_image`."""
        with self._call("pull_image"):
            await self._engine.pull_image(image, progress)

    def image_changes(self) -> AsyncGenerator[None, None]:
        """See :meth:`Engine.image_changes`."""
        return self._engine.image_changes()

    async def create(self, spec: ContainerSpec) -> Container:
        """See :meth:`Engine.create`."""
        with self._call("create"):
            return await self._engine.create(spec)

    async def start(self, container_id: str) -> None:
        """See :meth:`Engine.start`."""
        with self._call("start"):
            await self._engine.start(container_id)

    async def inspect(self, container_id: str) -> Container:
        """See :meth:`Engine.inspect`."""
        with self._call("inspect"):
            return await self._engine.inspect(container_id)

    async def wait(self, container_id: str, seconds: float) -> Container:
        """See :meth:`Engine.wait`."""
        return await self._engine.wait(container_id, seconds)

    async def endpoint(self, container_id: str) -> Endpoint | None:
        """See :meth:`Engine.endpoint`."""
        with self._call("endpoint"):
            return await self._engine.endpoint(container_id)

    def output(self, container_id: str, *, follow: bool) -> AsyncGenerator[bytes, None]:
        """See :meth:`Engine.output`."""
        return self._engine.output(container_id, follow=follow)

    async def usage(self, container_id: str) -> Usage:
        """See :meth:`Engine.usage`."""
        with self._call("usage"):
            return await self._engine.usage(container_id)

    async def stop(self, container_id: str, grace_seconds: float) -> None:
        """See :meth:`Engine.stop`."""
        with self._call("stop"):
            await self._engine.stop(container_id, grace_seconds)

    async def written(self, container_id: str) -> int:
        """See :meth:`Engine.written`."""
        with self._call("written"):
            return await self._engine.written(container_id)

    async def remove(self, container_id: str, *, patience_seconds: float = 0.0) -> None:
        """See :meth:`Engine.remove`."""
        with self._call("remove"):
            await self._engine.remove(container_id, patience_seconds=patience_seconds)

    async def labelled(self, label: str, value: str) -> Sequence[Labelled]:
        """See :meth:`Engine.labelled`."""
        with self._call("labelled"):
            return await self._engine.labelled(label, value)
