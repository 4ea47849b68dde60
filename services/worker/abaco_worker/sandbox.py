"""The container of one attempt, as a value: its name, its labels, its environment, its limits.

Name and labels are how a worker that comes back finds what it began: the same assignment always
gives the same name, and another assignment, even of a log that was begun anew, another one.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from abaco_proto import events as ev
from abaco_proto import ids
from abaco_proto.envelope import Recorded, format_time
from abaco_worker.config import Config
from abaco_worker.engine import ContainerSpec

HOST = "abaco.host_id"
ASSIGNMENT = "abaco.assignment"


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """All that one run needs to know. ``state`` is the actor's, at the start of the run."""

    recorded: Recorded
    assignment: ev.ExecutionAssigned
    definition: ev.Definition
    revision: int = 0
    message: ev.MessageReceived
    state: Any = ""


def container_spec(order: Order, config: Config) -> ContainerSpec:
    """The container that runs an order."""
    return ContainerSpec(
        name=container_name(order.recorded),
        image=order.definition.image,
        environment=environment(order),
        labels=labels(order.recorded),
        memory_bytes=config.container_memory_bytes,
        cpus=config.container_cpus,
        processes=config.container_processes,
        network_mode=config.network_mode,
        kept_output_bytes=config.max_log_bytes,
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
    text = container_labels.get(ASSIGNMENT, "").partition("@")[0]
    return int(text) if text.isascii() and text.isdecimal() else 0


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
