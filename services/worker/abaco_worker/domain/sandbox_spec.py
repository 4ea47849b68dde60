"""What a sandbox is made from, and for which worker."""

import msgspec

from abaco_proto import events as ev
from abaco_worker.domain.container_labels import HOST
from abaco_worker.domain.containers import ContainerSpec, LauncherMounts, NetworkFiles
from abaco_worker.domain.run_limits import limits
from abaco_worker.worker_settings import Config


class SeatKey(msgspec.Struct, frozen=True, order=True):
    """Whose sandbox it is."""

    tenant: str
    actor_id: str
    worker_id: str


class Blueprint(msgspec.Struct, frozen=True, kw_only=True):
    """All that distinguishes one waiting sandbox from another: a run fits only into its equal."""

    image: str
    memory_bytes: int
    cpus: float
    processes: int
    network_mode: str
    privileged: bool
    no_new_privileges: bool = True
    open_files: int = 0


def blueprint(definition: ev.Definition, config: Config, image: str = "") -> Blueprint:
    """What a sandbox for an actor is made from; ``image`` where it is not the actor's own."""
    allowed = limits(definition, config)
    return Blueprint(
        image=image or definition.image,
        memory_bytes=allowed.mem_limit,
        cpus=allowed.max_cpus,
        processes=allowed.max_processes,
        network_mode=config.network_mode,
        privileged=definition.privileged and config.allow_privileged,
        no_new_privileges=definition.no_new_privileges or not config.allow_new_privileges,
        open_files=config.container_open_files,
    )


def sandbox_spec(  # noqa: PLR0913 - all that a container is made from
    name: str,
    host_id: str,
    key: SeatKey,
    drawn: Blueprint,
    *,
    image_id: str,
    mounts: LauncherMounts,
    network_files: NetworkFiles | None = None,
) -> ContainerSpec:
    """The container of a sandbox. Nothing of a message, a state or a secret is in it.

    It is made of the very image whose words the launcher will be told, whatever became of the name.
    """
    return ContainerSpec(
        name=name,
        image=image_id,
        environment={},
        labels={
            "abaco.tenant": key.tenant,
            "abaco.actor_id": key.actor_id,
            "abaco.worker_id": key.worker_id,
            HOST: host_id,
        },
        memory_bytes=drawn.memory_bytes,
        cpus=drawn.cpus,
        processes=drawn.processes,
        network_mode=drawn.network_mode,
        kept_output_bytes=0,
        privileged=drawn.privileged,
        no_new_privileges=drawn.no_new_privileges,
        open_files=drawn.open_files,
        launcher=mounts,
        network_files=network_files,
    )
