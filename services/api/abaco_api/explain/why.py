"""Why an execution is where it is: a fold of its actor's events. Pure.

The actor's other executions are forgotten when they have ended, so a long history costs time but
not memory.
"""

from collections import deque
from collections.abc import Collection

from abaco_api.explain.event_sentences import sentence
from abaco_api.explain.execution_position import Backlog, HostCapacity, backlog_of, position
from abaco_api.explain.explain_results import CauseResult, EffectResult, StepResult, WhyResult
from abaco_proto import actor, execution
from abaco_proto import events as ev
from abaco_proto.actor import Actor
from abaco_proto.envelope import Recorded, format_time
from abaco_proto.execution import Execution, ExecutionStatus
from abaco_proto.fold import Fold
from abaco_proto.names import actor_and_type
from abaco_proto.state_keys import ordinal_of

MOST = 100
"""Of what happened around an execution while it waited, the latest; of its effects, the first."""

WHILE_WAITING = (
    ev.WorkerRequested,
    ev.WorkerReady,
    ev.WorkerFailed,
    ev.WorkerLost,
    ev.ActorUpdated,
)
OVER = (ExecutionStatus.COMPLETE, ExecutionStatus.HALTED, ExecutionStatus.PURGED)


class ExecutionHistory:
    """A fold of an actor's events that keeps those about one execution.

    The events may be all of the actor's, or those that :mod:`abaco_api.explain.why_selection`
    selects.
    """

    def __init__(self, tenant: str, actor_id: str, ordinal: int) -> None:
        """Nothing has happened yet to the ``ordinal``-th message of the actor."""
        self.actor_id = actor_id
        self._key = (tenant, actor_id, ordinal)
        self._fold = Fold()
        self._own: list[Recorded] = []
        self._around: deque[Recorded] = deque(maxlen=MOST)
        self.reruns: list[EffectResult] = []

    @property
    def execution(self) -> Execution:
        """Its state; ``INITIAL`` when it does not exist."""
        return self._fold.executions.get(self._key, execution.INITIAL)

    @property
    def actor(self) -> Actor:
        """Its actor."""
        return self._fold.actors.get(self._key[:2], actor.INITIAL)

    @property
    def backlog(self) -> Backlog:
        """The actor's other executions, if the fold has all events of the actor."""
        others = [e for k, e in self._fold.executions.items() if k != self._key]
        return backlog_of(self.execution, others)

    @property
    def event_ids(self) -> list[str]:
        """The ids of its events. An event that it caused names one of them as its cause."""
        return [recorded.id for recorded in self._own]

    def take(self, recorded: Recorded) -> None:
        """Take in one more event of the actor's history."""
        before = self.execution
        self._fold.apply(recorded)
        event = recorded.event
        if ordinal_of(event, self._key[1]) == self._key[2] or self.execution is not before:
            self._own.append(recorded)
        elif _is_around(event, before):
            self._around.append(recorded)
        self._note_rerun(recorded)
        self._forget_ended(ordinal_of(event, self._key[1]))

    def answer(
        self,
        hosts: HostCapacity,
        caused: list[EffectResult] | None,
        backlog: Backlog,
        live: Collection[str] | None = None,
    ) -> WhyResult:
        """All that can be said; ``caused`` are the messages that subscriptions made of it.

        ``live`` are the ids of the actor's live workers, where the fold has not all events.
        """
        cause = _cause(self._own[0])
        known = self._fold.workers.values()
        workers = [w for w in known if live is None or w.worker_id in live]
        now = position(self.execution, self.actor, workers, backlog, hosts)
        effects = None if caused is None else [*self.reruns, *caused][:MOST]
        return WhyResult(
            execution_id=self.execution.execution_id,
            status=self.execution.status,
            says=f"{cause.says} {now.says}",
            cause=cause,
            steps=[_step(r) for r in sorted([*self._own, *self._around], key=_sequence)],
            standing=now,
            caused=effects,
        )

    def _forget_ended(self, ordinal: int | None) -> None:
        key = (*self._key[:2], -1 if ordinal is None else ordinal)
        found = self._fold.executions.get(key)
        if found is not None and found.status in OVER and key != self._key:
            del self._fold.executions[key]

    def _note_rerun(self, recorded: Recorded) -> None:
        event = recorded.event
        if not isinstance(event, ev.MessageReceived) or event.rerun is None:
            return
        if event.rerun.execution_id == self.execution.execution_id and len(self.reruns) < MOST:
            rerun = rerun_effect(event.actor_id, event.execution_id, recorded.sequence)
            self.reruns.append(rerun)


def rerun_effect(actor_id: str, execution_id: str, sequence: int) -> EffectResult:
    """A rerun as an effect of what it is a rerun of."""
    return EffectResult(
        seq=sequence,
        execution_id=execution_id,
        actor_id=actor_id,
        kind="rerun",
        says=f"It was run again as {execution_id}.",
    )


def _is_around(event: ev.Event, before: Execution) -> bool:
    """Whether an event is about what an execution waits for, or about the worker that has it."""
    if before.status is ExecutionStatus.SUBMITTED:
        return isinstance(event, WHILE_WAITING)
    if isinstance(event, ev.WorkerLost | ev.WorkerFailed):
        return not before.ended and event.worker_id == before.worker_id
    return False


def _sequence(recorded: Recorded) -> int:
    return recorded.sequence


def _step(recorded: Recorded) -> StepResult:
    return StepResult(
        seq=recorded.sequence,
        time=format_time(recorded.time),
        type=actor_and_type(recorded.subject)[1],
        principal=recorded.principal,
        says=sentence(recorded.event),
    )


def _cause(recorded: Recorded) -> CauseResult:
    event = recorded.event
    assert isinstance(event, ev.MessageReceived)
    if event.rerun is not None:
        return CauseResult(
            kind="rerun",
            says=f"{recorded.principal or 'A person'} wanted {event.rerun.execution_id} to be run"
            " again.",
            id=recorded.causation_id,
            principal=recorded.principal,
            execution_id=event.rerun.execution_id,
        )
    if event.subscription_id is not None:
        what = f"Event {event.source_sequence} of {event.sender}"
        return CauseResult(
            kind="subscription",
            says=f"{what} became a message by the subscription {event.subscription_id}.",
            id=recorded.causation_id,
            principal=recorded.principal,
            sequence=event.source_sequence,
            actor_id=event.sender,
            subscription_id=event.subscription_id,
        )
    sender = f" from {event.sender}" if event.sender else ""
    by = f" by {recorded.principal}" if recorded.principal else ""
    return CauseResult(
        kind="request",
        says=f"A message was sent{sender}{by}.",
        id=recorded.causation_id,
        principal=recorded.principal,
    )
