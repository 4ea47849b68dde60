"""The container engine, watched: how long its calls take, and which fail."""

from collections.abc import AsyncGenerator, Callable, Sequence

from abaco_worker.engine import (
    Container,
    ContainerSpec,
    Endpoint,
    Engine,
    Image,
    Labelled,
    PullProgress,
    Usage,
)
from abaco_worker.metrics import Metrics


class WatchedEngine:
    """Implements :class:`abaco_worker.engine.Engine` by another one, and counts what it does.

    What lasts as long as a container or the worker runs (``wait``, ``output``, ``image_changes``)
    says nothing of the engine and is only passed on.
    """

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        """Count in ``metrics`` what is asked of ``engine``."""
        self._engine = engine
        self._call = metrics.call

    @property
    def location(self) -> str:
        """See :attr:`abaco_worker.engine.Engine.location`."""
        return self._engine.location

    async def confinements(self) -> frozenset[str]:
        """See :meth:`abaco_worker.engine.Engine.confinements`."""
        with self._call("confinements"):
            return await self._engine.confinements()

    async def find_image(self, image: str) -> Image:
        """See :meth:`abaco_worker.engine.Engine.find_image`."""
        with self._call("find_image"):
            return await self._engine.find_image(image)

    async def pull_image(self, image: str, progress: Callable[[PullProgress], None]) -> None:
        """See :meth:`abaco_worker.engine.Engine.pull_image`."""
        with self._call("pull_image"):
            await self._engine.pull_image(image, progress)

    def image_changes(self) -> AsyncGenerator[None, None]:
        """See :meth:`abaco_worker.engine.Engine.image_changes`."""
        return self._engine.image_changes()

    async def create(self, spec: ContainerSpec) -> Container:
        """See :meth:`abaco_worker.engine.Engine.create`."""
        with self._call("create"):
            return await self._engine.create(spec)

    async def start(self, container_id: str) -> None:
        """See :meth:`abaco_worker.engine.Engine.start`."""
        with self._call("start"):
            await self._engine.start(container_id)

    async def inspect(self, container_id: str) -> Container:
        """See :meth:`abaco_worker.engine.Engine.inspect`."""
        with self._call("inspect"):
            return await self._engine.inspect(container_id)

    async def wait(self, container_id: str, seconds: float) -> Container:
        """See :meth:`abaco_worker.engine.Engine.wait`."""
        return await self._engine.wait(container_id, seconds)

    async def endpoint(self, container_id: str) -> Endpoint | None:
        """See :meth:`abaco_worker.engine.Engine.endpoint`."""
        with self._call("endpoint"):
            return await self._engine.endpoint(container_id)

    def output(self, container_id: str, *, follow: bool) -> AsyncGenerator[bytes, None]:
        """See :meth:`abaco_worker.engine.Engine.output`."""
        return self._engine.output(container_id, follow=follow)

    async def usage(self, container_id: str) -> Usage:
        """See :meth:`abaco_worker.engine.Engine.usage`."""
        with self._call("usage"):
            return await self._engine.usage(container_id)

    async def stop(self, container_id: str, grace_seconds: float) -> None:
        """See :meth:`abaco_worker.engine.Engine.stop`."""
        with self._call("stop"):
            await self._engine.stop(container_id, grace_seconds)

    async def written(self, container_id: str) -> int:
        """See :meth:`abaco_worker.engine.Engine.written`."""
        with self._call("written"):
            return await self._engine.written(container_id)

    async def remove(self, container_id: str, *, patience_seconds: float = 0.0) -> None:
        """See :meth:`abaco_worker.engine.Engine.remove`."""
        with self._call("remove"):
            await self._engine.remove(container_id, patience_seconds=patience_seconds)

    async def labelled(self, label: str, value: str) -> Sequence[Labelled]:
        """See :meth:`abaco_worker.engine.Engine.labelled`."""
        with self._call("labelled"):
            return await self._engine.labelled(label, value)
