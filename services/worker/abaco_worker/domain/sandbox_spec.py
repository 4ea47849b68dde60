"""The sandbox specification: what a sandbox is made from, its limits, and its worker."""

from typing import Literal

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from abaco_proto import events as ev
from abaco_worker.domain.container_labels import HOST_LABEL
from abaco_worker.domain.engine_values import ContainerSpec, LauncherMounts, NetworkFiles
from abaco_worker.domain.run_request import SandboxLimits
from abaco_worker.worker_settings import MEBIBYTE, WorkerSettings

Isolation = Literal["sandbox", "container"]
"""What each message gets: a sandbox in a container that stays, or a container of its own."""

LAUNCHER_MEMORY_BYTES = 16 * MEBIBYTE
"""What a container that stays may use beyond the limit of a message: the launcher's memory, and the
page cache while it removes files."""

SPARE_PROCESSES = 3
"""The processes of a container that stays beyond the launcher's and a message's: one of the helper,
one of the next message, and the one that removes files (``layer.c``)."""


class WorkerKey(msgspec.Struct, frozen=True, order=True):
    """The worker that a sandbox belongs to. Worker ids are unique within a tenant's actor."""

    tenant: str
    actor_id: str
    worker_id: str


class SandboxSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All properties in which sandboxes differ. A run needs a sandbox with an equal spec.

    ``isolation`` is what is wanted. A host that cannot make sandboxes makes containers instead.
    """

    image: str
    memory_bytes: int
    cpus: float
    processes: int
    network_mode: str
    privileged: bool
    no_new_privileges: bool = True
    open_files: int = 0
    isolation: Isolation = "container"

    @property
    def message_limits(self) -> SandboxLimits:
        """What a message may use in a container that stays. The container limits its CPU time."""
        return SandboxLimits(
            memory_bytes=self.memory_bytes,
            processes=self.processes,
            no_new_privileges=self.no_new_privileges,
        )


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a run may use: bytes, CPUs, processes, seconds. 0 seconds or 0 disk bytes: no limit."""

    mem_limit: int
    max_cpus: float
    max_processes: int
    max_run_seconds: float
    max_log_bytes: int
    max_disk_bytes: int


def limits(definition: ev.Definition, config: WorkerSettings) -> Limits:
    """Return the actor's limits, with the host's where the actor sets none."""
    host = Limits(
        mem_limit=config.container_memory_bytes,
        max_cpus=config.container_cpus,
        max_processes=config.container_processes,
        max_run_seconds=config.max_run_seconds,
        max_log_bytes=config.max_log_bytes,
        max_disk_bytes=config.max_disk_bytes,
    )
    own = {name: getattr(definition, name) for name in Limits.__struct_fields__}
    return replace(host, **{name: value for name, value in own.items() if value is not None})


def is_privileged(definition: ev.Definition, config: WorkerSettings) -> bool:
    """Return whether an actor's programs have the rights of the host's root."""
    return definition.privileged and config.allow_privileged


def wanted_isolation(definition: ev.Definition, config: WorkerSettings) -> str:
    """Return the isolation that the actor asks for, or else the host's setting."""
    return config.isolation if definition.isolation is UNSET else definition.isolation


def sandbox_spec(definition: ev.Definition, config: WorkerSettings, image: str = "") -> SandboxSpec:
    """Return the spec of an actor's sandboxes; ``image`` replaces the actor's own.

    A privileged program can change its container, so no other message gets that container.
    """
    allowed = limits(definition, config)
    privileged = is_privileged(definition, config)
    stays = wanted_isolation(definition, config) == "sandbox" and not privileged
    return SandboxSpec(
        image=image or definition.image,
        memory_bytes=allowed.mem_limit,
        cpus=allowed.max_cpus,
        processes=allowed.max_processes,
        network_mode=config.network_mode,
        privileged=privileged,
        no_new_privileges=definition.no_new_privileges or not config.allow_new_privileges,
        open_files=config.container_open_files,
        isolation="sandbox" if stays else "container",
    )


def sandbox_container_spec(  # noqa: PLR0913 - all that a container is made from
    name: str,
    host_id: str,
    key: WorkerKey,
    spec: SandboxSpec,
    *,
    image_id: str,
    mounts: LauncherMounts,
    network_files: NetworkFiles | None,
    stays: bool,
) -> ContainerSpec:
    """Return the container of a sandbox. It contains nothing of a message, a state or a secret.

    It uses the image id and not the name, so that the container has the image whose command the
    launcher is given, even if the name has moved to another image. If it ``stays``, each message
    has the spec's limits, and the container a little more, for its launcher.
    """
    return ContainerSpec(
        name=name,
        image=image_id,
        environment={},
        labels={
            "abaco.tenant": key.tenant,
            "abaco.actor_id": key.actor_id,
            "abaco.worker_id": key.worker_id,
            HOST_LABEL: host_id,
        },
        memory_bytes=spec.memory_bytes + stays * LAUNCHER_MEMORY_BYTES,
        cpus=spec.cpus,
        processes=spec.processes + stays * SPARE_PROCESSES,
        network_mode=spec.network_mode,
        kept_output_bytes=0,
        privileged=spec.privileged,
        no_new_privileges=spec.no_new_privileges,
        open_files=spec.open_files,
        launcher=mounts,
        network_files=network_files,
    )
