"""Containers and images as values, as the engine port passes them."""

import signal
from collections.abc import Mapping

import msgspec

PROGRAM = "/.abaco/launcher"
"""Where a waiting container finds its entry point; the launcher takes it away."""

CONFINEMENTS = ("apparmor", "seccomp", "selinux")
"""What a kernel confines containers with, if the engine uses it."""


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
