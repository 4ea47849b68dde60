"""The inputs of a run, read from the log at the sequences that its events name."""

from typing import Any

import msgspec

from abaco_api.domain.views import Row
from abaco_jetstream.ports import EventLog
from abaco_proto import events as ev
from abaco_proto.errors import Refused, Unavailable
from abaco_proto.execution import ENDED

RIGHTS = {"privileged": False, "no_new_privileges": True}
"""The fields of a definition that say what a program may do, and their defaults."""


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run depends on, as far as the platform provides it.

    A rerun names its own definition and state; any other run has those in force at its start.
    """

    message: ev.MessageReceived
    definition: ev.Definition | None
    state: Any
    image: str | None
    actor_sequence: int
    state_sequence: int

    @property
    def environment(self) -> dict[str, str]:
        """The variables of the definition, and over them those of the message."""
        default = self.definition.default_environment if self.definition is not None else {}
        return {**default, **self.message.environment}


async def read_inputs(log: EventLog, row: Row) -> Inputs:
    """The inputs of an execution, by its row.

    Raises:
        Unavailable: the log does not answer, or does not hold them.
    """
    recorded = await log.at(row["message_sequence"])
    message = recorded.event if recorded is not None else None
    if not isinstance(message, ev.MessageReceived):
        raise Unavailable(f"the message of {row['execution_id']} cannot be read")
    again = message.rerun
    actor_sequence = again.actor_sequence if again is not None else row["actor_sequence"]
    state_sequence = again.state_sequence if again is not None else row["state_sequence"]
    return Inputs(
        message=message,
        definition=await _definition(log, actor_sequence),
        state=await _state(log, state_sequence),
        image=row["image_digest"],
        actor_sequence=actor_sequence,
        state_sequence=state_sequence,
    )


def same_inputs(one: Inputs, other: Inputs) -> dict[str, bool]:
    """Which inputs are the same. An unknown image is not the same as any.

    The rights of a run are named only where they differ.
    """
    texts = [(i.message.message, i.message.content_type) for i in (one, other)]
    return {
        "image": one.image is not None and one.image == other.image,
        "message": texts[0] == texts[1],
        "environment": one.environment == other.environment,
        "state": one.state == other.state,
        **{right: False for right in RIGHTS if _right(one, right) != _right(other, right)},
    }


def _right(inputs: Inputs, name: str) -> bool:
    default = RIGHTS[name]
    return default if inputs.definition is None else bool(getattr(inputs.definition, name))


def rerun(row: Row, inputs: Inputs, ordinal: int) -> ev.MessageReceived:
    """The ``ordinal``-th message of the inbox: the same inputs once more.

    ``rerun.image`` is the digest as it was recorded: that of a registry where the image had one,
    otherwise the image's id. The name to it stands in the definition of then.

    Raises:
        Refused: the execution has not ended, or never ran.
    """
    execution_id, message = row["execution_id"], inputs.message
    if row["status"] not in ENDED:
        what = f"{execution_id} is {row['status']}, and only what has ended can be run again"
        raise Refused(f"execution_id: {what}")
    if inputs.image is None:
        raise Refused(f"execution_id: {execution_id} never ran, so there is no image to run again")
    actor_id = message.actor_id
    return ev.MessageReceived(
        actor_id=actor_id,
        execution_id=f"{actor_id}_exc_{ordinal}",
        ordinal=ordinal,
        message=message.message,
        content_type=message.content_type,
        environment=message.environment,
        sender=message.sender,
        rerun=ev.Rerun(
            execution_id=execution_id,
            actor_sequence=inputs.actor_sequence,
            state_sequence=inputs.state_sequence,
            image=inputs.image,
        ),
    )


async def _definition(log: EventLog, sequence: int) -> ev.Definition | None:
    found = await log.at(sequence) if sequence else None
    event = found.event if found is not None else None
    return event.definition if isinstance(event, ev.ActorRegistered | ev.ActorUpdated) else None


async def _state(log: EventLog, sequence: int) -> Any:
    found = await log.at(sequence) if sequence else None
    event = found.event if found is not None else None
    return event.state if isinstance(event, ev.ActorStateSet) else ""
