"""The sandbox specification: what a sandbox is made from, and for which worker."""

import msgspec

from abaco_proto import events as ev
from abaco_worker.domain.container_labels import HOST_LABEL
from abaco_worker.domain.containers import ContainerSpec, LauncherMounts, NetworkFiles
from abaco_worker.domain.run_limits import limits
from abaco_worker.worker_settings import WorkerSettings


class WorkerKey(msgspec.Struct, frozen=True, order=True):
    """The worker that a sandbox belongs to. Worker ids are unique within a tenant's actor."""

    tenant: str
    actor_id: str
    worker_id: str


class SandboxSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All properties in which sandboxes differ. A run needs a sandbox with an equal spec."""

    image: str
    memory_bytes: int
    cpus: float
    processes: int
    network_mode: str
    privileged: bool
    no_new_privileges: bool = True
    open_files: int = 0


def sandbox_spec(definition: ev.Definition, config: WorkerSettings, image: str = "") -> SandboxSpec:
    """Return the spec of an actor's sandboxes; ``image`` replaces the actor's own."""
    allowed = limits(definition, config)
    return SandboxSpec(
        image=image or definition.image,
        memory_bytes=allowed.mem_limit,
        cpus=allowed.max_cpus,
        processes=allowed.max_processes,
        network_mode=config.network_mode,
        privileged=definition.privileged and config.allow_privileged,
        no_new_privileges=definition.no_new_privileges or not config.allow_new_privileges,
        open_files=config.container_open_files,
    )


def sandbox_container_spec(  # noqa: PLR0913 - all that a container is made from
    name: str,
    host_id: str,
    key: WorkerKey,
    spec: SandboxSpec,
    *,
    image_id: str,
    mounts: LauncherMounts,
    network_files: NetworkFiles | None = None,
) -> ContainerSpec:
    """Return the container of a sandbox. It contains nothing of a message, a state or a secret.

    It uses the image id and not the name, so that the container has the image whose command the
    launcher is given, even if the name has moved to another image.
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
        memory_bytes=spec.memory_bytes,
        cpus=spec.cpus,
        processes=spec.processes,
        network_mode=spec.network_mode,
        kept_output_bytes=0,
        privileged=spec.privileged,
        no_new_privileges=spec.no_new_privileges,
        open_files=spec.open_files,
        launcher=mounts,
        network_files=network_files,
    )
