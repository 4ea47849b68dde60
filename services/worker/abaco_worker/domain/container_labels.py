"""The names and labels of containers, and the assignments they refer to.

Without a launcher, a container is made for one attempt. The same assignment always gives it the
same name; any other assignment, also one of another log, gives another name.
"""

import hashlib
from collections.abc import Mapping

from abaco_proto import events as ev
from abaco_proto.envelope import Recorded, format_time

HOST_LABEL = "abaco.host_id"
ASSIGNMENT_LABEL = "abaco.assignment"


def container_name(recorded: Recorded) -> str:
    """Return the unique and readable name of the container of an assignment."""
    event = _assignment(recorded)
    identity = f"{event.host_id} {recorded.tenant} {assignment_key(recorded)}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    return f"abaco-{event.execution_id}-{event.attempt}-{digest}"


def assignment_labels(recorded: Recorded) -> dict[str, str]:
    """Return the labels of the container of an assignment."""
    event = _assignment(recorded)
    return {
        "abaco.tenant": recorded.tenant,
        "abaco.actor_id": event.actor_id,
        "abaco.worker_id": event.worker_id,
        HOST_LABEL: event.host_id,
        "abaco.execution_id": event.execution_id,
        "abaco.attempt": str(event.attempt),
        ASSIGNMENT_LABEL: assignment_key(recorded),
    }


def assignment_key(recorded: Recorded) -> str:
    """Return ``<sequence>@<time>``, which identifies an assignment among those of all logs."""
    return f"{recorded.sequence}@{format_time(recorded.time)}"


def labelled_sequence(labels: Mapping[str, str]) -> int:
    """Return the sequence of the assignment in a container's labels; 0 if there is none."""
    return sequence_in(labels.get(ASSIGNMENT_LABEL, ""))


def sequence_in(key: str) -> int:
    """Return the sequence in an assignment key; 0 if it is not one."""
    number = key.partition("@")[0]
    return int(number) if number.isascii() and number.isdecimal() else 0


def labels_match(labels: Mapping[str, str], recorded: Recorded | None) -> bool:
    """Return whether a container's labels are those of this assignment."""
    if recorded is None or not isinstance(recorded.event, ev.ExecutionAssigned):
        return False
    return all(labels.get(k) == v for k, v in assignment_labels(recorded).items())


def _assignment(recorded: Recorded) -> ev.ExecutionAssigned:
    assert isinstance(recorded.event, ev.ExecutionAssigned)
    return recorded.event
