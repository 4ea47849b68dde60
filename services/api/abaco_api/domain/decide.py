"""Decisions on actors, workers and executions: ``(state, command) -> events``.

There are no events if there is nothing to do. :mod:`abaco_api.domain.messages` has the decisions
on inboxes.

Each function raises ``Unknown`` if the subject of the command does not exist, ``Refused`` if its
state does not allow the command, and ``BadParameter`` if the command does not fit the state.
"""

import msgspec

from abaco_api.domain import actor_definition
from abaco_api.domain import commands as cmd
from abaco_api.domain.control_state import ExecutionControlState
from abaco_proto import events as ev
from abaco_proto.actor import Actor
from abaco_proto.errors import Refused, Unknown
from abaco_proto.execution import ENDED, ExecutionStatus
from abaco_proto.worker import Worker, WorkerStatus

ActorCommand = (
    cmd.UpdateActor
    | cmd.DeleteActor
    | cmd.SetState
    | cmd.Subscribe
    | cmd.Unsubscribe
    | cmd.ScaleWorkers
)


def decide(actor: Actor, command: ActorCommand, *, stopped: bool = False) -> list[ev.Event]:
    """Decide a command on an actor; ``stopped`` as in ``decide_scale``."""
    match command:
        case cmd.UpdateActor():
            return decide_update(actor, command)
        case cmd.DeleteActor():
            return decide_delete(actor)
        case cmd.SetState():
            return decide_set_state(actor, command)
        case cmd.Subscribe():
            return decide_subscribe(actor, command)
        case cmd.Unsubscribe():
            return decide_unsubscribe(actor, command)
        case cmd.ScaleWorkers():
            return decide_scale(actor, command, stopped=stopped)


def decide_register(actor_id: str, command: cmd.RegisterActor, owner: str = "") -> list[ev.Event]:
    """An actor under an id that was never used; ``owner`` is empty if nobody is logged in."""
    return [
        ev.ActorRegistered(
            actor_id=actor_id, definition=command.definition, owner=owner or msgspec.UNSET
        )
    ]


def decide_update(actor: Actor, command: cmd.UpdateActor) -> list[ev.Event]:
    """The whole new definition, even when nothing changed: an update clears an error."""
    _check_exists(actor)
    changed = actor_definition.changed(actor.definition, command.changes)
    another_image = changed.image != actor.definition.image
    revision = actor.revision + 1 if another_image else actor.revision
    return [ev.ActorUpdated(actor_id=actor.actor_id, definition=changed, revision=revision)]


def decide_delete(actor: Actor) -> list[ev.Event]:
    """The end of an actor."""
    _check_exists(actor)
    return [ev.ActorDeleted(actor_id=actor.actor_id)]


def decide_set_state(actor: Actor, command: cmd.SetState) -> list[ev.Event]:
    """A new state, one version on."""
    _check_exists(actor)
    version = actor.state_version + 1
    return [ev.ActorStateSet(actor_id=actor.actor_id, state=command.state, version=version)]


def decide_subscribe(actor: Actor, command: cmd.Subscribe) -> list[ev.Event]:
    """A subscription, named after the sequence of the actor's last event."""
    _check_exists(actor)
    return [
        ev.ActorSubscribed(
            actor_id=actor.actor_id,
            subscription_id=f"{actor.actor_id}_sub_{actor.sequence}",
            event_pattern=command.event_pattern,
        )
    ]


def decide_unsubscribe(actor: Actor, command: cmd.Unsubscribe) -> list[ev.Event]:
    """The end of a subscription."""
    _check_exists(actor)
    subscription_id = command.subscription_id
    if subscription_id not in actor.subscriptions:
        what = f"{actor.actor_id} has no subscription {subscription_id[:100]!r}"
        raise Unknown(f"subscription_id: {what}")
    return [ev.ActorUnsubscribed(actor_id=actor.actor_id, subscription_id=subscription_id)]


def decide_scale(
    actor: Actor, command: cmd.ScaleWorkers, *, stopped: bool = False
) -> list[ev.Event]:
    """A definition that keeps more or fewer workers.

    ``stopped``: a worker was stopped since the definition was set, and is not replaced. Then the
    same number leads to an event, after which all workers are kept again.
    """
    _check_exists(actor)
    scaled = actor_definition.scaled(actor.definition, command.num)
    if scaled == actor.definition and not stopped:
        return []
    return [ev.ActorUpdated(actor_id=actor.actor_id, definition=scaled, revision=actor.revision)]


def decide_stop(worker: Worker, command: cmd.StopWorker) -> list[ev.Event]:
    """The request that a worker stops; none if it was requested before."""
    if worker.status is WorkerStatus.UNKNOWN:
        raise Unknown(f"worker_id: {command.actor_id} has no worker {command.worker_id!r}")
    if worker.status is WorkerStatus.STOPPING:
        return []
    if not worker.live:
        raise Refused(f"worker_id: {command.worker_id} is {worker.status} already")
    return [
        ev.WorkerStopRequested(
            actor_id=command.actor_id,
            worker_id=command.worker_id,
            host_id=worker.host_id,
            reason=ev.REQUESTED_BY_CLIENT,
        )
    ]


def decide_halt(
    command: cmd.HaltExecution, control: ExecutionControlState, status: ExecutionStatus | None
) -> list[ev.Event]:
    """The request that an execution ends. ``status`` is None if it is unknown.

    A halt of an ended execution changes nothing, so an unknown status is no obstacle. An ERROR is
    decided by ``control``: it is the only end that a retry can undo.
    """
    if control.abandoned:
        raise Refused(f"execution_id: {command.execution_id} was abandoned already")
    if control.halted_at:
        return []
    if status in ENDED and status is not ExecutionStatus.ERROR:
        raise Refused(f"execution_id: {command.execution_id} is {status} already")
    return [ev.ExecutionHaltRequested(actor_id=command.actor_id, execution_id=command.execution_id)]


def decide_retry(
    command: cmd.RetryExecution, control: ExecutionControlState, status: ExecutionStatus | None
) -> list[ev.Event]:
    """New attempts for an abandoned execution. ``status`` is None if it is unknown or old."""
    execution_id = command.execution_id
    if not control.abandoned or status not in (None, ExecutionStatus.ERROR):
        raise Refused(f"execution_id: {execution_id} is not abandoned: there is nothing to retry")
    return [
        ev.ExecutionRetryRequested(
            actor_id=command.actor_id, execution_id=execution_id, attempts=control.attempts
        )
    ]


def _check_exists(actor: Actor) -> None:
    if not actor.exists:
        raise Unknown(f"actor_id: there is no actor {actor.actor_id!r}")
