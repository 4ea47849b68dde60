"""The container engine as the worker needs it: a port, and the values that cross it.

Adapters: ``docker_engine.py`` (the real one) and ``tests/fake_engine.py``. Both pass
``tests/contract/engine_suite.py``. Every method raises :class:`~abaco_proto.errors.Unavailable`
when the engine does not answer, and :class:`EngineFault` when it fails at what it was asked.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol

from abaco_worker.domain.containers import (
    Container,
    ContainerSpec,
    Endpoint,
    Image,
    Labelled,
    PullProgress,
    Usage,
)


class Engine(Protocol):
    """A container engine."""

    @property
    def location(self) -> str:
        """Its URL."""
        ...

    async def confinements(self) -> frozenset[str]:
        """Which of ``CONFINEMENTS`` it uses for containers that are not privileged."""
        ...

    async def find_image(self, image: str) -> Image:
        """An image of this host.

        Raises:
            ImageMissing: it is not here.
            ImageRefused: this is no name of an image.
        """
        ...

    async def pull_image(self, image: str, progress: Callable[[PullProgress], None]) -> None:
        """Get an image from its registry. ``progress`` may be called from another thread.

        Raises:
            ImageRefused: the registry, or the way to it, says no.
        """
        ...

    def image_changes(self) -> AsyncGenerator[None, None]:
        """Something once the changes are followed, and then whenever images have changed, or their
        names: pulled, loaded, tagged, removed. Many changes may be told at once. It ends, or raises
        :class:`~abaco_proto.errors.Unavailable`, when the engine goes away.
        """
        ...

    async def create(self, spec: ContainerSpec) -> Container:
        """Make a container; one that has this name already is returned as it stands.

        Raises:
            ImageMissing: the image is not here.
            CannotStart: the image has no command to run.
        """
        ...

    async def start(self, container_id: str) -> None:
        """Start a fresh container.

        Raises:
            CannotStart: its command cannot be run.
            ContainerMissing: it is gone.
        """
        ...

    async def inspect(self, container_id: str) -> Container:
        """A container as it stands now.

        Raises:
            ContainerMissing: it is gone.
        """
        ...

    async def wait(self, container_id: str, seconds: float) -> Container:
        """A container as it stands when it has ended, or when about ``seconds`` have passed.

        Raises:
            ContainerMissing: it is gone.
        """
        ...

    async def endpoint(self, container_id: str) -> Endpoint | None:
        """How a running container is connected; None where it is not to the engine's own bridge.

        Raises:
            ContainerMissing: it is gone.
        """
        ...

    def output(self, container_id: str, *, follow: bool) -> AsyncGenerator[bytes, None]:
        """Standard output and error, interleaved as they were written, from the very beginning.

        With ``follow`` it goes on while the container runs; its end then does not prove that the
        container ended, nor that nothing was missed: read again without, after ``wait``. Without
        ``follow`` it is all there is. Not more than a bounded part is held in memory.

        Raises:
            ContainerMissing: it is gone.
        """
        ...

    async def usage(self, container_id: str) -> Usage:
        """What a running container has used so far; nothing for one that does not run."""
        ...

    async def stop(self, container_id: str, grace_seconds: float) -> None:
        """End a running container: SIGTERM, and after the grace SIGKILL. One that ended is none."""
        ...

    async def written(self, container_id: str) -> int:
        """How many bytes on the disk a container has taken: over its image, in its volumes, in the
        files that are mounted for it.

        Raises:
            ContainerMissing: it is gone.
            EngineFault: there are too many files to count in time.
        """
        ...

    async def remove(self, container_id: str, *, patience_seconds: float = 0.0) -> None:
        """Remove a container, killing it if it runs. One that is gone already is no error.

        One that is about to end by itself is given so long for it.
        """
        ...

    async def labelled(self, label: str, value: str) -> Sequence[Labelled]:
        """All containers, running or not, that have this label."""
        ...
