"""The names and labels of containers, and which assignment they belong to."""

import hashlib
from collections.abc import Mapping

from abaco_proto import events as ev
from abaco_proto.envelope import Recorded, format_time

HOST = "abaco.host_id"
ASSIGNMENT = "abaco.assignment"


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


def _assignment(recorded: Recorded) -> ev.ExecutionAssigned:
    assert isinstance(recorded.event, ev.ExecutionAssigned)
    return recorded.event
