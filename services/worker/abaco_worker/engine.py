"""The container engine as the worker needs it: a port, and the values that cross it.

Adapters: :mod:`abaco_worker.docker_engine` (the real one) and ``tests/fake_engine.py``. Both pass
``tests/contract/engine_suite.py``. Every method raises :class:`~abaco_proto.errors.Unavailable`
when the engine does not answer, and :class:`EngineFault` when it fails at what it was asked.
"""

import signal
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from abaco_proto.errors import AbacoError, Refused, Unknown

CONFINEMENTS = ("apparmor", "seccomp", "selinux")
"""What a kernel confines containers with, if the engine uses it."""


class ImageMissing(Unknown):
    """The image is not on this host."""


class ImageRefused(Refused):
    """The image cannot be had; the text names it and says why, for a person."""


class ContainerMissing(Unknown):
    """There is no such container (any more)."""


class CannotStart(Refused):
    """The image's own command cannot be run: a result of the execution, not a fault of ours.

    ``exit_code`` is what a shell would answer: 127 not found, 126 not executable.
    """

    def __init__(self, words: str, *, exit_code: int) -> None:
        """``words`` are the engine's."""
        super().__init__(words)
        self.exit_code = exit_code


class EngineFault(AbacoError):
    """The engine answered that it could not do it, for a reason that is not the image's."""


class RunLost(AbacoError):
    """A run that began has come to nothing, through no fault of the image's."""


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image on this host. ``digest`` is the registry's, or the image id where it has none.

    The rest is what it says of itself: the words of ENTRYPOINT and CMD together, USER, WORKDIR,
    ENV, and STOPSIGNAL as its number.
    """

    image_id: str
    digest: str
    command: tuple[str, ...] = ()
    user: str = ""
    directory: str = ""
    environment: Mapping[str, str] = {}
    stop_signal: int = signal.SIGTERM


class PullProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a pull has come. ``total_bytes`` counts the layers whose size is known so far."""

    done_layers: int
    layers: int
    done_bytes: int
    total_bytes: int


class LauncherMounts(msgspec.Struct, frozen=True, kw_only=True):
    """What a container that waits needs of the host: the program that pauses in it."""

    program: str


class NetworkFiles(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine writes for a container it connects, on the host: who is who."""

    hosts: str
    resolv_conf: str


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """How the engine has connected a container to its own bridge, where others may join in.

    ``address`` has the bits of the prefix with it: ``172.17.0.2/16``.
    """

    bridge: str
    address: str
    gateway: str
    mtu: int
    files: NetworkFiles


class ContainerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A container to be made: the image's default command, in an environment, under limits.

    ``kept_output_bytes`` of the output must stay readable however it is cut into lines. With a
    ``launcher`` that is run instead, as root, and does nothing: the image's command is started
    beside it; the engine then keeps no output, and no health is checked. With ``network_files`` it
    is in a network of its own that is connected to nothing yet, whatever ``network_mode`` says.
    ``open_files`` is a process' limit, which an engine keeps if it may; 0 is the engine's own.
    """

    name: str
    image: str
    environment: Mapping[str, str]
    labels: Mapping[str, str]
    memory_bytes: int
    cpus: float
    processes: int
    network_mode: str
    kept_output_bytes: int
    privileged: bool = False
    no_new_privileges: bool = True
    open_files: int = 0
    launcher: LauncherMounts | None = None
    network_files: NetworkFiles | None = None


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """A container as it stands. Times are RFC 3339 as the engine gives them, or empty.

    ``pid`` is its process 1 as the engine numbers it, while it runs.
    """

    container_id: str
    image_id: str
    labels: Mapping[str, str] = {}
    status: str = "created"
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    started_at: str = ""
    finished_at: str = ""
    pid: int = 0

    @property
    def fresh(self) -> bool:
        """Whether it was never started: starting it again later would run it a second time."""
        return self.status == "created"

    @property
    def ended(self) -> bool:
        """Whether it ran and stopped."""
        return self.status in ("exited", "dead")


class Labelled(msgspec.Struct, frozen=True, kw_only=True):
    """A container in a list."""

    container_id: str
    name: str
    labels: Mapping[str, str]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a container has used since its start: CPU time, and bytes over network and disks."""

    cpu_ns: int = 0
    io_bytes: int = 0


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
