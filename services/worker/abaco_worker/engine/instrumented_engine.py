"""The instrumented engine: measures the duration and the failures of the engine's calls."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractContextManager

from abaco_worker.domain.engine_values import (
    BridgeEndpoint,
    Container,
    ContainerSpec,
    Image,
    LabelledContainer,
    PullProgress,
    ResourceUsage,
)
from abaco_worker.engine.engine_port import Engine

MeasureCall = Callable[[str], AbstractContextManager[None]]


class InstrumentedEngine:
    """Implements :class:`Engine`: passes each call to another engine, and measures it.

    ``wait``, ``output`` and ``image_changes`` last as long as a container or the worker runs, so
    they are not measured.
    """

    def __init__(self, engine: Engine, measure: MeasureCall) -> None:
        """``measure`` is entered for each call, with the name of the method."""
        self._engine = engine
        self._measure = measure

    @property
    def location(self) -> str:
        """See :attr:`Engine.location`."""
        return self._engine.location

    async def confinements(self) -> frozenset[str]:
        """See :meth:`Engine.confinements`."""
        with self._measure("confinements"):
            return await self._engine.confinements()

    async def find_image(self, image: str) -> Image:
        """See :meth:`Engine.find_image`."""
        with self._measure("find_image"):
            return await self._engine.find_image(image)

    async def pull_image(self, image: str, progress: Callable[[PullProgress], None]) -> None:
        """See :meth:`Engine.pull_image`."""
        with self._measure("pull_image"):
            await self._engine.pull_image(image, progress)

    def image_changes(self) -> AsyncGenerator[None, None]:
        """See :meth:`Engine.image_changes`."""
        return self._engine.image_changes()

    async def create(self, spec: ContainerSpec) -> Container:
        """See :meth:`Engine.create`."""
        with self._measure("create"):
            return await self._engine.create(spec)

    async def start(self, container_id: str) -> None:
        """See :meth:`Engine.start`."""
        with self._measure("start"):
            await self._engine.start(container_id)

    async def inspect(self, container_id: str) -> Container:
        """See :meth:`Engine.inspect`."""
        with self._measure("inspect"):
            return await self._engine.inspect(container_id)

    async def wait(self, container_id: str, timeout_seconds: float) -> Container:
        """See :meth:`Engine.wait`."""
        return await self._engine.wait(container_id, timeout_seconds)

    async def endpoint(self, container_id: str) -> BridgeEndpoint | None:
        """See :meth:`Engine.endpoint`."""
        with self._measure("endpoint"):
            return await self._engine.endpoint(container_id)

    def output(self, container_id: str, *, follow: bool) -> AsyncGenerator[bytes, None]:
        """See :meth:`Engine.output`."""
        return self._engine.output(container_id, follow=follow)

    async def usage(self, container_id: str) -> ResourceUsage:
        """See :meth:`Engine.usage`."""
        with self._measure("usage"):
            return await self._engine.usage(container_id)

    async def stop(self, container_id: str, grace_seconds: float) -> None:
        """See :meth:`Engine.stop`."""
        with self._measure("stop"):
            await self._engine.stop(container_id, grace_seconds)

    async def written(self, container_id: str) -> int:
        """See :meth:`Engine.written`."""
        with self._measure("written"):
            return await self._engine.written(container_id)

    async def remove(self, container_id: str, *, exit_seconds: float = 0.0) -> None:
        """See :meth:`Engine.remove`."""
        with self._measure("remove"):
            await self._engine.remove(container_id, exit_seconds=exit_seconds)

    async def labelled(self, label: str, value: str) -> Sequence[LabelledContainer]:
        """See :meth:`Engine.labelled`."""
        with self._measure("labelled"):
            return await self._engine.labelled(label, value)
