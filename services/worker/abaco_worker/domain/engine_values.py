"""Images and containers as values, as the engine port passes them."""

import signal
from collections.abc import Mapping

import msgspec

LAUNCHER_PATH = "/.abaco/launcher"
"""The entry point of a sandbox's container, inside it. The launcher unmounts it before a run."""

CONFINEMENTS = ("apparmor", "seccomp", "selinux")
"""What a kernel can confine containers with, beside namespaces."""


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image on this host. ``digest`` is the registry's, or the image id where it has none.

    ``command`` is ENTRYPOINT followed by CMD; ``user``, ``directory``, ``environment`` and
    ``stop_signal`` (a number) are USER, WORKDIR, ENV and STOPSIGNAL.
    """

    image_id: str
    digest: str
    command: tuple[str, ...] = ()
    user: str = ""
    directory: str = ""
    environment: Mapping[str, str] = {}
    stop_signal: int = signal.SIGTERM


class PullProgress(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of a pull. ``total_bytes`` counts the layers whose size is known so far."""

    done_layers: int
    layers: int
    done_bytes: int
    total_bytes: int


class LauncherMounts(msgspec.Struct, frozen=True, kw_only=True):
    """What the container of a sandbox mounts from the host: ``program`` is the launcher's path."""

    program: str


class NetworkFiles(msgspec.Struct, frozen=True, kw_only=True):
    """The paths on the host of a container's ``/etc/hosts`` and ``/etc/resolv.conf``."""

    hosts: str
    resolv_conf: str


class BridgeEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """How the engine attached a container to its own bridge.

    ``address`` includes the prefix length: ``172.17.0.2/16``.
    """

    bridge: str
    address: str
    gateway: str
    mtu: int
    files: NetworkFiles


class ContainerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A container to be created: the image's default command, its environment and its limits.

    The engine keeps at least the last ``kept_output_bytes`` of the output, however it is cut into
    lines. With a ``launcher``, the launcher runs as root in place of the image's command and only
    pauses; the engine then keeps no output and runs no health check. With ``network_files`` the
    container gets its own unconnected network namespace, whatever ``network_mode`` is.
    ``open_files`` is the limit of one process; 0 is the engine's default. An engine without the
    right to set it ignores it.
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
    """The state of a container. Times are RFC 3339 as the engine reports them, or empty.

    ``pid`` is the engine's number of the container's process 1 while it runs, else 0.
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
    def never_started(self) -> bool:
        """Whether it was never started. Only such a container may be started: a run is unique."""
        return self.status == "created"

    @property
    def ended(self) -> bool:
        """Whether it ran and exited."""
        return self.status in ("exited", "dead")


class LabelledContainer(msgspec.Struct, frozen=True, kw_only=True):
    """A container in the engine's list."""

    container_id: str
    name: str
    labels: Mapping[str, str]


class ResourceUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What a container has used since its start: CPU time, and bytes over network and disks."""

    cpu_ns: int = 0
    io_bytes: int = 0
