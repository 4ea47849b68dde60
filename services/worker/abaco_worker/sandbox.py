"""Containers as values: their names, their labels, their environment, their limits.

There are two kinds. A sandbox waits for an assignment with a launcher in it; it is made from a
:class:`Blueprint` for a :class:`SeatKey`, and files beside it say what it was taken for. Where
there is no launcher, a container is made for one attempt: the same assignment always gives it the
same name, and another assignment, even of a log that was begun anew, another one.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from abaco_proto import events as ev
from abaco_proto import ids
from abaco_proto.envelope import EPOCH, Recorded, format_time
from abaco_worker.config import Config
from abaco_worker.engine import ContainerSpec, Image, LauncherMounts, NetworkFiles
from abaco_worker.launcher.request import Request

HOST = "abaco.host_id"
ASSIGNMENT = "abaco.assignment"


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """All that one run needs to know. ``state`` is the actor's, at the start of the run.

    ``found_image`` is how the engine names the image of a run that is run again.
    """

    recorded: Recorded
    assignment: ev.ExecutionAssigned
    definition: ev.Definition
    revision: int = 0
    message: ev.MessageReceived
    accepted_at: datetime = EPOCH
    state: Any = ""
    state_sequence: int = 0
    found_image: str = ""

    @property
    def image(self) -> str:
        """What is run: the actor's image, or the very one of the run that is run again."""
        return self.found_image or self.definition.image


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a run may use: bytes, processors, processes, seconds; 0 seconds or disk is no limit."""

    mem_limit: int
    max_cpus: float
    max_processes: int
    max_run_seconds: float
    max_log_bytes: int
    max_disk_bytes: int


def limits(definition: ev.Definition, config: Config) -> Limits:
    """The actor's own limits, and the host's where it has none."""
    host = Limits(
        mem_limit=config.container_memory_bytes,
        max_cpus=config.container_cpus,
        max_processes=config.container_processes,
        max_run_seconds=config.max_run_seconds,
        max_log_bytes=config.max_log_bytes,
        max_disk_bytes=config.max_disk_bytes,
    )
    said = {name: getattr(definition, name) for name in Limits.__struct_fields__}
    return replace(host, **{name: value for name, value in said.items() if value is not None})


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


def container_spec(order: Order, config: Config) -> ContainerSpec:
    """The container that runs an order without a launcher."""
    drawn = blueprint(order.definition, config, order.image)
    return ContainerSpec(
        name=container_name(order.recorded),
        image=drawn.image,
        environment=environment(order),
        labels=labels(order.recorded),
        memory_bytes=drawn.memory_bytes,
        cpus=drawn.cpus,
        processes=drawn.processes,
        network_mode=drawn.network_mode,
        kept_output_bytes=limits(order.definition, config).max_log_bytes,
        privileged=drawn.privileged,
        no_new_privileges=drawn.no_new_privileges,
        open_files=drawn.open_files,
    )


def request(order: Order, image: Image, config: Config) -> Request:
    """What a sandbox is asked to run. One byte more is kept than recorded: there was more."""
    allowed = limits(order.definition, config)
    return Request(
        argv=image.command,
        environment={**image.environment, **environment(order)},
        directory=image.directory,
        user=image.user,
        output_bytes=allowed.max_log_bytes + 1,
        run_seconds=allowed.max_run_seconds,
        grace_seconds=config.halt_grace_seconds,
        stop_signal=image.stop_signal,
    )


def container_name(recorded: Recorded) -> str:
    """The name of the container of an assignment, for a person and unique."""
    event = _assignment(recorded)
    place = f"{event.host_id} {recorded.tenant} {mark(recorded)}"
    digest = hashlib.sha256(place.encode()).hexdigest()[:12]
    return f"abaco-{event.execution_id}-{event.attempt}-{digest}"


def labels(recorded: Recorded) -> dict[str, str]:
    """What a container says about itself."""
    event = _assignment(recorded)
    return {
        "abaco.tenant": recorded.tenant,
        "abaco.actor_id": event.actor_id,
        "abaco.worker_id": event.worker_id,
        HOST: event.host_id,
        "abaco.execution_id": event.execution_id,
        "abaco.attempt": str(event.attempt),
        ASSIGNMENT: mark(recorded),
    }


def mark(recorded: Recorded) -> str:
    """What tells an assignment from every other, also from those of other logs."""
    return f"{recorded.sequence}@{format_time(recorded.time)}"


def marked_sequence(container_labels: Mapping[str, str]) -> int:
    """Where the assignment of a labelled container stands in the log; 0 when it does not say."""
    return sequence_of(container_labels.get(ASSIGNMENT, ""))


def sequence_of(text: str) -> int:
    """Where the assignment with this mark stands in the log; 0 for what is no mark."""
    number = text.partition("@")[0]
    return int(number) if number.isascii() and number.isdecimal() else 0


def belongs(container_labels: Mapping[str, str], recorded: Recorded | None) -> bool:
    """Whether a labelled container is of this very assignment."""
    if recorded is None or not isinstance(recorded.event, ev.ExecutionAssigned):
        return False
    return all(container_labels.get(k) == v for k, v in labels(recorded).items())


def environment(order: Order) -> dict[str, str]:
    """The actor's defaults, over them what the message set, over them what the platform says."""
    event, message = order.assignment, order.message
    return {
        **order.definition.default_environment,
        **message.environment,
        "MSG": message.message,
        "_abaco_actor_id": event.actor_id,
        "_abaco_actor_name": ids.actor_name(event.actor_id),
        "_abaco_actor_state": state_text(order.state),
        "_abaco_Content_Type": message.content_type,
        "_abaco_container_repo": order.definition.image,
        "_abaco_execution_id": event.execution_id,
        "_abaco_worker_id": event.worker_id,
    }


def state_text(state: Any) -> str:
    """A state as a variable holds it: text as it is, everything else as JSON."""
    return state if isinstance(state, str) else msgspec.json.encode(state).decode()


def _assignment(recorded: Recorded) -> ev.ExecutionAssigned:
    assert isinstance(recorded.event, ev.ExecutionAssigned)
    return recorded.event
