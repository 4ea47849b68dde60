"""The engine port: what the worker uses of a container engine.

Adapters: ``docker_engine.py`` (the real one) and ``tests/support/fake/fake_engine.py``. Both pass
``tests/contract/engine_suite.py``. Every method raises :class:`~abaco_proto.errors.Unavailable`
if the engine does not answer, and :class:`EngineFault` if the engine fails.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol

from abaco_worker.domain.engine_values import (
    BridgeEndpoint,
    Container,
    ContainerSpec,
    Image,
    LabelledContainer,
    PullProgress,
    ResourceUsage,
)


class Engine(Protocol):
    """A container engine."""

    @property
    def location(self) -> str:
        """The engine's URL."""
        ...

    async def confinements(self) -> frozenset[str]:
        """Return which of ``CONFINEMENTS`` the engine uses for unprivileged containers."""
        ...

    async def find_image(self, image: str) -> Image:
        """Return an image of this host.

        Raises:
            ImageMissing: it is not on this host.
            ImageRefused: the name is not a valid name of an image.
        """
        ...

    async def pull_image(self, image: str, progress: Callable[[PullProgress], None]) -> None:
        """Pull an image from its registry. ``progress`` may be called from another thread.

        Raises:
            ImageRefused: the registry refuses, or cannot be reached.
        """
        ...

    def image_changes(self) -> AsyncGenerator[None, None]:
        """Yield when the subscription begins, and after images or their names have changed.

        Changes are pulls, loads, tags and removals; several may be reported as one. The generator
        ends, or raises :class:`~abaco_proto.errors.Unavailable`, if the engine goes away.
        """
        ...

    async def create(self, spec: ContainerSpec) -> Container:
        """Create a container. If one has this name, return that one instead.

        Raises:
            ImageMissing: the image is not on this host.
            CannotStart: the image has no command.
        """
        ...

    async def start(self, container_id: str) -> None:
        """Start a container that was never started.

        Raises:
            CannotStart: its command cannot be run.
            ContainerMissing: it does not exist.
        """
        ...

    async def inspect(self, container_id: str) -> Container:
        """Return the state of a container.

        Raises:
            ContainerMissing: it does not exist.
        """
        ...

    async def wait(self, container_id: str, timeout_seconds: float) -> Container:
        """Return the state of a container when it has exited, or after about the timeout.

        Raises:
            ContainerMissing: it does not exist.
        """
        ...

    async def endpoint(self, container_id: str) -> BridgeEndpoint | None:
        """Return how a running container is attached; None if not to the engine's own bridge.

        Raises:
            ContainerMissing: it does not exist.
        """
        ...

    def output(self, container_id: str, *, follow: bool) -> AsyncGenerator[bytes, None]:
        """Yield standard output and error, interleaved as they were written, from the beginning.

        Without ``follow``, this is what exists now. With ``follow``, it continues while the
        container runs. The end of a followed output proves neither that the container exited nor
        that all output was read: after ``wait``, read again without ``follow``. A bounded part is
        held in memory.

        Raises:
            ContainerMissing: it does not exist.
        """
        ...

    async def usage(self, container_id: str) -> ResourceUsage:
        """Return what a running container has used so far; zeros if it does not run."""
        ...

    async def stop(self, container_id: str, grace_seconds: float) -> None:
        """Stop a running container: SIGTERM, and SIGKILL after the grace. It may have exited."""
        ...

    async def written(self, container_id: str) -> int:
        """Return the bytes on disk that a container has written.

        They are in its layer over the image, in its volumes, and in files mounted for it.

        Raises:
            ContainerMissing: it does not exist.
            EngineFault: there are too many files to count in time.
        """
        ...

    async def remove(self, container_id: str, *, exit_seconds: float = 0.0) -> None:
        """Remove a container, and kill it if it runs. It need not exist.

        ``exit_seconds`` is how long it may take to exit by itself before it is killed.
        """
        ...

    async def labelled(self, label: str, value: str) -> Sequence[LabelledContainer]:
        """Return all containers with this label, running or not."""
        ...
