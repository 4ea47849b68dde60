"""The settings of the worker, as one frozen struct."""

import re
from typing import Annotated, Literal

from msgspec import Meta

from abaco_proto.names import HOST_PATTERN
from abaco_proto.settings import AllowNewPrivileges, AllowPrivileged, MetricsServiceSettings

MEBIBYTE = 1024 * 1024

PullPolicy = Literal["missing", "always", "never"]


class WorkerSettings(MetricsServiceSettings, frozen=True, kw_only=True):
    """Each field is the variable ``ABACO_<FIELD>``; its description is its documentation.

    The container engine's URL is in ``DOCKER_HOST``, as for every Docker client.
    """

    host_id: Annotated[
        str,
        Meta(
            description="This host's id, unique in the installation. Empty: from the hostname.",
            pattern=f"^$|{HOST_PATTERN}",
        ),
    ] = ""
    host_capacity: Annotated[
        int, Meta(description="Slots of this host. 0: 8 per core, at least 16.", ge=0, le=10_000)
    ] = 0
    heartbeat_seconds: Annotated[
        float, Meta(description="The interval between heartbeats.", gt=0, le=60)
    ] = 1.0
    pull_policy: Annotated[
        PullPolicy, Meta(description="When an image is pulled: missing, always, never.")
    ] = "missing"
    worker_dir: Annotated[
        str,
        Meta(
            description="The folder of the sandbox directories. The container engine must see it"
            " under the same path.",
            pattern="^/",
        ),
    ] = "/var/lib/abaco/worker"
    isolation: Annotated[
        Literal["sandbox", "container"],
        Meta(
            description="What separates a message from the one before it, for actors that do not"
            " choose it. sandbox: a new sandbox in the worker's container; container: a container"
            " of its own, which takes the engine ten times as long. A host without a launcher"
            " always uses containers."
        ),
    ] = "sandbox"
    launcher: Annotated[
        str,
        Meta(
            description="The path of the launcher's program. Empty: where the set-up built it."
            " off: no launcher, and every run starts cold.",
        ),
    ] = ""
    halt_grace_seconds: Annotated[
        float,
        Meta(description="The time between SIGTERM and SIGKILL when a run is ended.", ge=0, le=600),
    ] = 10.0
    allow_new_privileges: AllowNewPrivileges = False
    allow_privileged: AllowPrivileged = False
    starts_at_once: Annotated[
        int,
        Meta(
            description="How many containers start at once. More than two start at once only"
            " while the removal of exited containers keeps up.",
            ge=1,
            le=64,
        ),
    ] = 2
    network_mode: Annotated[
        str, Meta(description="The engine's network for containers.", min_length=1)
    ] = "bridge"
    network_by: Annotated[
        Literal["auto", "engine"],
        Meta(
            description="What attaches a sandbox to the network bridge. auto: the worker if it has"
            " the capabilities, which saves half of a container's CPU time, and gives each message"
            " a network of its own; engine: always the engine, so that the messages of a worker"
            " share the network of its container.",
        ),
    ] = "auto"
    container_memory_bytes: Annotated[
        int, Meta(description="The memory of a container.", ge=6 * MEBIBYTE)
    ] = 512 * MEBIBYTE
    container_cpus: Annotated[
        float, Meta(description="How many CPUs a container may use.", ge=0.01)
    ] = 1.0
    container_processes: Annotated[
        int, Meta(description="The limit on processes and threads in a container.", ge=1)
    ] = 256
    container_open_files: Annotated[
        int,
        Meta(
            description="The limit on open files of a process in a container, if the kernel allows"
            " more. With 0, or if the engine may not set it, the engine's own limit applies.",
            ge=0,
            le=1_073_741_816,
        ),
    ] = 1_048_576
    max_run_seconds: Annotated[
        float, Meta(description="How long a run may take; 0 is no limit.", ge=0)
    ] = 86_400.0
    max_disk_bytes: Annotated[
        int,
        Meta(
            description="The bytes on disk that a run may write, over its image and to volumes; 0"
            " is no limit.",
            ge=0,
        ),
    ] = 10 * 1024 * MEBIBYTE
    max_log_bytes: Annotated[
        int,
        Meta(
            description="The bytes of output that are kept of one execution; more is truncated.",
            ge=0,
            le=64 * MEBIBYTE,
        ),
    ] = MEBIBYTE


def host_id(config: WorkerSettings, hostname: str) -> str:
    """Return the id of this host: the setting, or the hostname as a valid token."""
    token = re.sub(r"[^A-Za-z0-9]+", "-", hostname).strip("-")[:63].rstrip("-")
    return config.host_id or token or "host"


def open_files(config: WorkerSettings, kernel_max: int) -> int:
    """Return the limit on open files that containers get; 0 if the kernel allows no more anyway.

    Containers of an engine without a limit inherit the kernel's, a thousand million under systemd.
    An engine with a lower limit may not raise it.
    """
    return config.container_open_files if config.container_open_files < kernel_max else 0


def capacity(config: WorkerSettings, cores: int) -> int:
    """Return the number of slots of this host."""
    return config.host_capacity or max(16, 8 * cores)
