"""Why: a fold of an actor's history that looks at one execution. Pure.

What has ended of the actor's other executions is let go of, so that a long history costs time but
not memory.
"""

from collections import deque

from abaco_api.explain.event_sentences import says
from abaco_api.explain.execution_position import Seats, standing
from abaco_api.explain.explain_results import CauseResult, EffectResult, StepResult, WhyResult
from abaco_proto import actor, execution
from abaco_proto import events as ev
from abaco_proto.actor import Actor
from abaco_proto.envelope import Recorded, format_time
from abaco_proto.execution import Execution, ExecutionStatus
from abaco_proto.fold import Fold
from abaco_proto.state_keys import ordinal_of
from abaco_proto.subjects import actor_and_type

MOST = 100
"""Of what happened around an execution while it waited, the latest; of its effects, the first."""

WHILE_WAITING = (
    ev.WorkerRequested | ev.WorkerReady | ev.WorkerFailed | ev.WorkerLost | ev.ActorUpdated
)
OVER = (ExecutionStatus.COMPLETE, ExecutionStatus.HALTED, ExecutionStatus.PURGED)


class Inquiry:
    """Takes the actor's history, event by event; then says what is known of one execution."""

    def __init__(self, tenant: str, actor_id: str, ordinal: int) -> None:
        self._key = (tenant, actor_id, ordinal)
        self._fold = Fold()
        self._own: list[Recorded] = []
        self._around: deque[Recorded] = deque(maxlen=MOST)
        self._reruns: list[EffectResult] = []

    @property
    def execution(self) -> Execution:
        """Where it stands; ``INITIAL`` when it does not exist."""
        return self._fold.executions.get(self._key, execution.INITIAL)

    @property
    def actor(self) -> Actor:
        """Whose it is."""
        return self._fold.actors.get(self._key[:2], actor.INITIAL)

    @property
    def event_ids(self) -> list[str]:
        """The ids of its events: what names one of them as its cause came of it."""
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
        self._let_go(ordinal_of(event, self._key[1]))

    def answer(self, seats: Seats, caused: list[EffectResult] | None) -> WhyResult:
        """All that can be said, given the seats of all hosts, and what subscriptions made of it."""
        cause = _cause(self._own[0])
        others = [e for k, e in self._fold.executions.items() if k != self._key]
        now = standing(self.execution, self.actor, list(self._fold.workers.values()), others, seats)
        effects = None if caused is None else [*self._reruns, *caused][:MOST]
        return WhyResult(
            execution_id=self.execution.execution_id,
            status=self.execution.status,
            says=f"{cause.says} {now.says}",
            cause=cause,
            steps=[_step(r) for r in sorted([*self._own, *self._around], key=_sequence)],
            standing=now,
            caused=effects,
        )

    def _let_go(self, ordinal: int | None) -> None:
        key = (*self._key[:2], -1 if ordinal is None else ordinal)
        found = self._fold.executions.get(key)
        if found is not None and found.status in OVER and key != self._key:
            del self._fold.executions[key]

    def _note_rerun(self, recorded: Recorded) -> None:
        event = recorded.event
        if not isinstance(event, ev.MessageReceived) or event.rerun is None:
            return
        if event.rerun.execution_id == self.execution.execution_id and len(self._reruns) < MOST:
            what = f"It was run again as {event.execution_id}."
            self._reruns.append(
                EffectResult(
                    seq=recorded.sequence,
                    execution_id=event.execution_id,
                    actor_id=event.actor_id,
                    kind="rerun",
                    says=what,
                )
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
        says=says(recorded.event),
    )


def _cause(recorded: Recorded) -> CauseResult:
    event = recorded.event
    assert isinstance(event, ev.MessageReceived)
    if event.rerun is not None:
        return CauseResult(
            kind="rerun",
            says=f"A person wanted {event.rerun.execution_id} to be run again.",
            id=recorded.causation_id,
            execution_id=event.rerun.execution_id,
        )
    if event.subscription_id is not None:
        what = f"Event {event.source_sequence} of {event.sender}"
        return CauseResult(
            kind="subscription",
            says=f"{what} became a message by the subscription {event.subscription_id}.",
            id=recorded.causation_id,
            sequence=event.source_sequence,
            actor_id=event.sender,
            subscription_id=event.subscription_id,
        )
    by = f" from {event.sender}" if event.sender else ""
    return CauseResult(kind="request", says=f"A message was sent{by}.", id=recorded.causation_id)
