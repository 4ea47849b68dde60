"""The settings of the worker, as one frozen value."""

import re
from typing import Annotated, Literal

from msgspec import Meta

from abaco_proto.ids import HOST_PATTERN
from abaco_proto.settings import MetricsServiceSettings

MEBIBYTE = 1024 * 1024

PullPolicy = Literal["missing", "always", "never"]


class Config(MetricsServiceSettings, frozen=True, kw_only=True):
    """Each field is the variable ``ABACO_<FIELD>``; its description is its documentation.

    Where the container engine is, ``DOCKER_HOST`` says, as to every client of Docker.
    """

    host_id: Annotated[
        str,
        Meta(
            description="This host's id, its own in the installation. Empty: from the hostname.",
            pattern=f"^$|{HOST_PATTERN}",
        ),
    ] = ""
    host_capacity: Annotated[
        int, Meta(description="Seats on this host. 0: 8 per core, at least 16.", ge=0, le=10_000)
    ] = 0
    heartbeat_seconds: Annotated[
        float, Meta(description="Time between two signs of life.", gt=0, le=60)
    ] = 1.0
    pull_policy: Annotated[
        PullPolicy, Meta(description="When an image is pulled: missing, always, never.")
    ] = "missing"
    worker_dir: Annotated[
        str,
        Meta(
            description="The folder of the sandboxes' sockets and output. The container engine"
            " must see it under the same path.",
            pattern="^/",
        ),
    ] = "/var/lib/abaco/worker"
    launcher: Annotated[
        str,
        Meta(
            description="The launcher's program. Empty: where the set-up built it. off: none, and"
            " every run starts cold.",
        ),
    ] = ""
    halt_grace_seconds: Annotated[
        float, Meta(description="Between SIGTERM and SIGKILL of a run that is ended.", ge=0, le=600)
    ] = 10.0
    allow_new_privileges: Annotated[
        bool,
        Meta(
            description="Whether actors may set no_new_privileges to false, so that setuid"
            " programs of their images have the rights of their owner. For all who may register"
            " actors: there are no roles yet."
        ),
    ] = False
    allow_privileged: Annotated[
        bool, Meta(description="Whether actors may have privileged containers.")
    ] = False
    starts_at_once: Annotated[
        int,
        Meta(
            description="Containers that are started side by side. More than two only while the"
            " removal of those that ended keeps up.",
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
            description="Who connects a waiting container to the network bridge. auto: the worker,"
            " where it may, which spares half a container's CPU time; engine: always the engine.",
        ),
    ] = "auto"
    container_memory_bytes: Annotated[
        int, Meta(description="The memory of a container.", ge=6 * MEBIBYTE)
    ] = 512 * MEBIBYTE
    container_cpus: Annotated[
        float, Meta(description="How many CPUs a container may use.", ge=0.01)
    ] = 1.0
    container_processes: Annotated[
        int, Meta(description="Most processes and threads in a container.", ge=1)
    ] = 256
    container_open_files: Annotated[
        int,
        Meta(
            description="Most open files of a process in a container, where the kernel allows more."
            " 0, and an engine that may not set it: the engine's own, as with docker run.",
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
            description="What a run may write to disks: over its image, to volumes; 0 is no limit.",
            ge=0,
        ),
    ] = 10 * 1024 * MEBIBYTE
    max_log_bytes: Annotated[
        int,
        Meta(description="Output kept of one execution; more is cut off.", ge=0, le=64 * MEBIBYTE),
    ] = MEBIBYTE


def host_id(config: Config, hostname: str) -> str:
    """The id of this host: as set, or the hostname made a valid token."""
    token = re.sub(r"[^A-Za-z0-9]+", "-", hostname).strip("-")[:63].rstrip("-")
    return config.host_id or token or "host"


def open_files(config: Config, kernel: int) -> int:
    """The limit that the engine is told; 0 for none, where the ``kernel`` allows no more anyway.

    An engine without a limit of its own hands on the kernel's, which is a thousand million under
    systemd. One whose limit is lower may have no right to raise it.
    """
    return config.container_open_files if config.container_open_files < kernel else 0


def capacity(config: Config, cores: int) -> int:
    """How many seats this host has."""
    return config.host_capacity or max(16, 8 * cores)
