"""The actor: a registered image with an inbox.

Only ``actor.*`` events change an actor's definition; the api appends them with an expected
sequence. The status follows from the events of its workers of the current revision: READY after one
became ready, ERROR after one failed. An error is not final: the scheduler requests another worker
after a pause, and a run that starts or an update ends the error.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec
from msgspec.structs import replace

from abaco_proto import events as ev
from abaco_proto.envelope import EPOCH, Recorded

# -- state ---------------------------------------------------------------------------------------


class ActorStatus(StrEnum):
    """The status of an actor."""

    __hash__ = str.__hash__  # the fast hash: every event looks up the table

    UNREGISTERED = "UNREGISTERED"
    SUBMITTED = "SUBMITTED"
    READY = "READY"
    ERROR = "ERROR"
    DELETED = "DELETED"


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """The fold of an actor's history.

    ``sequence`` is that of its last ``actor.*`` event, ``definition_sequence`` that of the event
    with the current definition.
    """

    actor_id: str = ""
    status: ActorStatus = ActorStatus.UNREGISTERED
    status_message: str = ""
    definition: ev.Definition = ev.Definition(name="", image="")
    revision: int = 0
    state: Any = ""
    state_version: int = 0
    subscriptions: dict[str, str] = {}
    sequence: int = 0
    definition_sequence: int = 0
    registered_at: datetime = EPOCH
    updated_at: datetime = EPOCH

    @property
    def exists(self) -> bool:
        """Whether it is registered and not deleted."""
        return self.status not in (ActorStatus.UNREGISTERED, ActorStatus.DELETED)


INITIAL = Actor()

# -- transitions ---------------------------------------------------------------------------------

REVISED = "actor.revised"
"""An ``actor.updated`` with a new revision: the status of the old image does not apply to it."""

_U, _S, _R = ActorStatus.UNREGISTERED, ActorStatus.SUBMITTED, ActorStatus.READY
_E, _D = ActorStatus.ERROR, ActorStatus.DELETED

TRANSITIONS: dict[tuple[ActorStatus, str], ActorStatus] = {
    (_U, "actor.registered"): _S,
    (_S, "actor.updated"): _S,
    (_R, "actor.updated"): _R,
    (_E, "actor.updated"): _S,
    (_S, REVISED): _S,
    (_R, REVISED): _S,
    (_E, REVISED): _S,
    **{
        (s, f"actor.{verb}"): s
        for s in (_S, _R, _E)
        for verb in ("state_set", "subscribed", "unsubscribed")
    },
    (_S, "worker.ready"): _R,
    (_R, "worker.ready"): _R,
    (_E, "worker.ready"): _R,
    (_S, "execution.started"): _R,
    (_R, "execution.started"): _R,
    (_E, "execution.started"): _R,
    (_S, "worker.failed"): _E,
    (_R, "worker.failed"): _E,
    (_E, "worker.failed"): _E,
    (_S, "actor.deleted"): _D,
    (_R, "actor.deleted"): _D,
    (_E, "actor.deleted"): _D,
}
"""An event that is not in the table changes nothing."""

RELEVANT_TYPES = frozenset(ev.TYPES[signal] for _, signal in TRANSITIONS if signal != REVISED)
"""The event types that can change an actor. A fold skips all others."""

# -- fold ----------------------------------------------------------------------------------------


def evolve(actor: Actor, recorded: Recorded) -> Actor:
    """The actor after one more event. Never raises; an event that does not apply is ignored."""
    event = recorded.event
    status = TRANSITIONS.get((actor.status, _signal(actor, event)))
    if status is None:
        return actor
    match event:
        case ev.ActorRegistered():
            actor = replace(
                INITIAL,
                actor_id=event.actor_id,
                definition=event.definition,
                revision=event.revision,
                definition_sequence=recorded.sequence,
                registered_at=recorded.time,
            )
        case ev.ActorUpdated():
            actor = replace(
                actor,
                definition=event.definition,
                revision=event.revision,
                definition_sequence=recorded.sequence,
                status_message="" if status is not _R else actor.status_message,
            )
        case ev.ActorStateSet():
            actor = replace(actor, state=event.state, state_version=event.version)
        case ev.ActorSubscribed():
            added = {**actor.subscriptions, event.subscription_id: event.event_pattern}
            actor = replace(actor, subscriptions=added)
        case ev.ActorUnsubscribed():
            kept = {k: v for k, v in actor.subscriptions.items() if k != event.subscription_id}
            actor = replace(actor, subscriptions=kept)
        case ev.WorkerReady() | ev.ExecutionStarted():
            if actor.status is status:
                return actor
            return replace(actor, status=status, status_message="", updated_at=recorded.time)
        case ev.WorkerFailed():
            return replace(
                actor, status=status, status_message=event.reason, updated_at=recorded.time
            )
    return replace(actor, status=status, sequence=recorded.sequence, updated_at=recorded.time)


def _signal(actor: Actor, event: ev.Event) -> str:
    """The key of an event in the table; empty for events of workers of another revision."""
    match event:
        case ev.ActorUpdated() if event.revision > actor.revision:
            return REVISED
        case ev.WorkerReady() | ev.WorkerFailed() | ev.ExecutionStarted():
            return ev.type_of(event) if event.revision == actor.revision else ""
    return ev.type_of(event)
