"""An actor's messages, as far as decisions depend on them.

Theory: this is :mod:`abaco_proto.execution` for all messages of one actor at once, without what no
decision needs. Where a message is kept says how its execution stands:

======================  =========================================================================
kept in                 the execution is
======================  =========================================================================
``waiting``             SUBMITTED, never tried: only its place in the log is kept
``retries``, returned   SUBMITTED again: its attempt failed, or a person wants it tried again
``retries``, the rest   ASSIGNED or RUNNING still, but its worker is gone
``running``             ASSIGNED or RUNNING, with a worker that lives
``abandoned``           ERROR, after the last attempt: a person may want it tried again
nowhere                 over
======================  =========================================================================

So what a purge, a halt or the end of the actor does to what waits for another attempt depends on
why it waits. Ordinals have no gaps: the ordinal of the first in the queue says all others.
"""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from abaco_proto import events as ev
from abaco_proto.envelope import EPOCH, Recorded
from abaco_proto.ids import execution_ordinal
from abaco_scheduler.abandoned import Abandoned


@dataclass(slots=True)
class Task:
    """A message that was taken from the queue, or is about to be.

    ``attempt`` is the latest, from 1, and ``forgiven`` are those before a person wanted more of
    them. ``reason`` says why the latest came to nothing, ``cause`` is the event that says so.
    """

    ordinal: int
    message_sequence: int
    attempt: int = 0
    forgiven: int = 0
    worker_id: str = ""
    returned: bool = False
    halted: bool = False
    reason: str = ""
    cause: str = ""
    failed_at: datetime = EPOCH

    @property
    def tries(self) -> int:
        """How many attempts count against it."""
        return self.attempt - self.forgiven


@dataclass(slots=True, frozen=True)
class Chain:
    """Where a message stands in a chain of subscriptions, and in the trace of who sent it."""

    correlation_id: str
    hops: int
    traceparent: str | None = None
    received_at: datetime | None = None


@dataclass(slots=True)
class Inbox:
    """The messages of one actor. ``gone`` are those in the queue that wait no longer.

    ``chains`` holds only messages that a subscription made, or that are traced: a plain backlog
    costs no more than its places in the log.
    """

    waiting: deque[int] = field(default_factory=deque)
    next_ordinal: int = 0
    gone: set[int] = field(default_factory=set)
    running: dict[int, Task] = field(default_factory=dict)
    retries: dict[int, Task] = field(default_factory=dict)
    abandoned: Abandoned = field(default_factory=Abandoned)
    chains: dict[int, Chain] = field(default_factory=dict)

    @property
    def backlog(self) -> int:
        """How many messages no worker has."""
        return len(self.waiting) - len(self.gone) + len(self.retries)

    def waits(self, ordinal: int) -> bool:
        """Whether a message is in the queue."""
        end = self.next_ordinal + len(self.waiting)
        return self.next_ordinal <= ordinal < end and ordinal not in self.gone

    def knows(self, ordinal: int) -> bool:
        """Whether a message is not over: it waits or runs, or can be tried again."""
        if ordinal in self.running or ordinal in self.retries or ordinal in self.abandoned:
            return True
        return self.waits(ordinal)


# -- what happens to it --------------------------------------------------------------------------


def observe(inbox: Inbox, recorded: Recorded, *, exists: bool) -> None:
    """Take note of an event of this actor; ``exists``: it was not deleted."""
    event = recorded.event
    match event:
        case ev.MessageReceived() if exists:
            _received(inbox, event, recorded)
        case ev.InboxPurged():
            _purged(inbox, event.up_to_ordinal)
        case ev.ActorDeleted():
            _deleted(inbox)
        case (
            ev.ExecutionHaltRequested()
            | ev.ExecutionFinished()
            | ev.ExecutionFailed()
            | ev.ExecutionAbandoned()
            | ev.ExecutionRetryRequested()
        ):
            ordinal = execution_ordinal(event.execution_id, event.actor_id)
            if ordinal is not None:
                _observe_one(inbox, ordinal, recorded, exists=exists)


def _observe_one(inbox: Inbox, ordinal: int, recorded: Recorded, *, exists: bool) -> None:
    match recorded.event:
        case ev.ExecutionHaltRequested():
            _halt_requested(inbox, ordinal)
        case ev.ExecutionFinished() as event:
            if _tried(inbox, ordinal, event.attempt) is not None:
                _forget(inbox, ordinal)
        case ev.ExecutionFailed() as event:
            _failed(inbox, ordinal, event, recorded, exists=exists)
        case ev.ExecutionAbandoned():
            _abandoned(inbox, ordinal, exists=exists)
        case ev.ExecutionRetryRequested():
            _retry_requested(inbox, ordinal, recorded)


def assigned(inbox: Inbox, event: ev.ExecutionAssigned) -> bool:
    """Take note of an assignment; False when it came too late, or is about nothing known."""
    ordinal = event.ordinal
    if inbox.waits(ordinal):
        task = Task(ordinal, _take(inbox, ordinal))
    else:
        found = inbox.retries.get(ordinal) or inbox.running.get(ordinal)
        if found is None or event.attempt <= found.attempt:
            return False
        task = found
    inbox.retries.pop(ordinal, None)
    inbox.running[ordinal] = task
    task.attempt, task.worker_id, task.returned = event.attempt, event.worker_id, False
    return True


def lost(inbox: Inbox, worker_id: str, reason: str, cause: str) -> None:
    """What a worker that is gone was running must be tried again."""
    for ordinal in [o for o, task in inbox.running.items() if task.worker_id == worker_id]:
        task = inbox.running.pop(ordinal)
        task.reason, task.cause, task.failed_at = reason, cause, EPOCH
        inbox.retries[ordinal] = task


def _received(inbox: Inbox, event: ev.MessageReceived, recorded: Recorded) -> None:
    if event.ordinal == inbox.next_ordinal + len(inbox.waiting):
        inbox.waiting.append(recorded.sequence)
        if recorded.hops or recorded.traceparent:
            inbox.chains[event.ordinal] = Chain(
                recorded.correlation_id, recorded.hops, recorded.traceparent, recorded.time
            )


def _purged(inbox: Inbox, up_to_ordinal: int) -> None:
    while inbox.waiting and inbox.next_ordinal <= up_to_ordinal:
        inbox.chains.pop(inbox.next_ordinal, None)
        _drop_first(inbox)
    _drop_returned(inbox, up_to_ordinal)


def _deleted(inbox: Inbox) -> None:
    inbox.waiting.clear()
    inbox.gone.clear()
    inbox.abandoned.clear()
    _drop_returned(inbox)


def _drop_returned(inbox: Inbox, up_to_ordinal: int | None = None) -> None:
    for ordinal, task in list(inbox.retries.items()):
        if task.returned and (up_to_ordinal is None or ordinal <= up_to_ordinal):
            _forget(inbox, ordinal)


def _halt_requested(inbox: Inbox, ordinal: int) -> None:
    task = inbox.running.get(ordinal) or inbox.retries.get(ordinal)
    if inbox.waits(ordinal):
        _take(inbox, ordinal)
        _forget(inbox, ordinal)
    elif task is not None and task.returned:
        _forget(inbox, ordinal)
    elif task is not None:
        task.halted = True


def _failed(
    inbox: Inbox, ordinal: int, event: ev.ExecutionFailed, recorded: Recorded, *, exists: bool
) -> None:
    task = _tried(inbox, ordinal, event.attempt)
    if task is None:
        return
    if task.halted or not exists:
        _forget(inbox, ordinal)
        return
    inbox.running.pop(ordinal, None)
    inbox.retries[ordinal] = task
    task.returned, task.reason = True, event.reason
    task.cause, task.failed_at = recorded.id, recorded.time


def _abandoned(inbox: Inbox, ordinal: int, *, exists: bool) -> None:
    if inbox.waits(ordinal):
        task: Task | None = Task(ordinal, _take(inbox, ordinal))
    else:
        task = inbox.running.pop(ordinal, None) or inbox.retries.pop(ordinal, None)
    if task is None:
        return
    if task.halted or not exists:
        _forget(inbox, ordinal)
    else:
        inbox.abandoned.add(ordinal, task.message_sequence, task.attempt)
        _forget_trace(inbox, ordinal)


def _retry_requested(inbox: Inbox, ordinal: int, recorded: Recorded) -> None:
    found = inbox.abandoned.pop(ordinal)
    if found is not None:
        sequence, attempts = found
        inbox.retries[ordinal] = Task(
            ordinal,
            sequence,
            attempt=attempts,
            forgiven=attempts,
            returned=True,
            cause=recorded.id,
        )


# -- keeping it ----------------------------------------------------------------------------------


def _tried(inbox: Inbox, ordinal: int, attempt: int) -> Task | None:
    """What a report of an attempt is about, if that attempt has a say."""
    task = inbox.running.get(ordinal) or inbox.retries.get(ordinal)
    reported = task is not None and not task.returned and task.attempt == attempt
    return task if reported else None


def _take(inbox: Inbox, ordinal: int) -> int:
    """Take a message out of the queue; its place in the log."""
    sequence = inbox.waiting[ordinal - inbox.next_ordinal]
    inbox.gone.add(ordinal)
    while inbox.next_ordinal in inbox.gone:
        _drop_first(inbox)
    return sequence


def _drop_first(inbox: Inbox) -> None:
    inbox.gone.discard(inbox.next_ordinal)
    inbox.waiting.popleft()
    inbox.next_ordinal += 1


def _forget_trace(inbox: Inbox, ordinal: int) -> None:
    """Keep of a chain only what subscriptions made of it: nobody traces what waits for a person."""
    chain = inbox.chains.pop(ordinal, None)
    if chain is not None and chain.hops:
        inbox.chains[ordinal] = Chain(chain.correlation_id, chain.hops)


def _forget(inbox: Inbox, ordinal: int) -> None:
    inbox.running.pop(ordinal, None)
    inbox.retries.pop(ordinal, None)
    inbox.chains.pop(ordinal, None)
