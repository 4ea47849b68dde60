"""Random histories as the services write them: each event follows from what happened before.

``projections`` makes any events at all; these are only those that somebody may append.
"""

import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import builders as b
from abaco_proto import events as ev
from abaco_proto import names
from abaco_proto.actor import Actor
from abaco_proto.envelope import Recorded
from abaco_proto.execution import Execution, ExecutionStatus
from abaco_proto.fold import Fold
from abaco_proto.worker import Worker, WorkerStatus

TENANT = "default"
MAX_LIVE = 3


def history(seed: int, count: int, actors: tuple[str, ...], *, end: bool) -> list[Recorded]:
    """Events of some actors; with ``end``, the first of them is deleted before the last events."""
    chance, fold = random.Random(seed), Fold()
    events: list[Recorded] = []

    def take(event: ev.Event) -> None:
        at = b.T0 + timedelta(seconds=len(events) + chance.randrange(3), microseconds=len(events))
        recorded = b.record(event, len(events) + 1, at=at)
        events.append(recorded)
        fold.apply(recorded)

    take(b.joined())
    for actor_id in actors:
        take(b.registered(actor_id))
    while len(events) < count:
        chosen = _event(chance, fold, chance.choice(actors))
        if chosen is not None:
            take(chosen)
    if end:
        take(ev.ActorDeleted(actor_id=actors[0]))
        for event in _late(fold, actors[0]):
            take(event)
    return events


def _event(chance: random.Random, fold: Fold, actor_id: str) -> ev.Event | None:
    actor = fold.actors[TENANT, actor_id]
    runs = [e for key, e in fold.executions.items() if key[1] == actor_id]
    workers = [w for w in fold.workers.values() if w.actor_id == actor_id]
    makers: list[Callable[[], ev.Event | None]] = [
        lambda: b.received(len(runs), actor_id, message="\x00"),
        lambda: _run(chance, runs, workers),
        lambda: _run(chance, runs, workers),
        lambda: _run(chance, runs, workers),
        lambda: _worker(chance, actor, workers),
        lambda: _worker(chance, actor, workers),
        lambda: _control(chance, runs, actor_id),
        lambda: _change(chance, actor),
    ]
    return chance.choice(makers)()


def _run(chance: random.Random, runs: list[Execution], workers: list[Worker]) -> ev.Event | None:
    active = [e for e in runs if not e.ended]
    if not active:
        return None
    run = chance.choice(active)
    idle = [w for w in workers if w.status is WorkerStatus.READY]
    if run.status is ExecutionStatus.SUBMITTED:
        if run.attempt and chance.random() < 0.3:
            return b.abandoned(run.ordinal, run.actor_id, attempts=run.attempt)
        if not idle:
            return None
        which = {"attempt": run.attempt + 1, "worker_id": chance.choice(idle).worker_id}
        return b.assigned(run.ordinal, run.actor_id, **which)
    at: dict[str, Any] = {"attempt": run.attempt, "worker_id": run.worker_id}
    if chance.random() < 0.2:
        return b.execution_failed(run.ordinal, run.actor_id, **at)
    if run.status is ExecutionStatus.ASSIGNED and chance.random() < 0.8:
        container = {"container_id": f"c{chance.randrange(10**6)}"}
        return b.started(run.ordinal, run.actor_id, **at, **container)
    halted = b.final_state(exit_code=143, ended_by=ev.EndedBy.HALT)
    how: dict[str, Any] = {"final_state": halted} if run.halt_requested else {}
    cost = {"runtime_ms": chance.random() * 1000, "io_bytes": chance.randrange(2**40)}
    return b.finished(run.ordinal, run.actor_id, **at, **how, **cost)


def _worker(chance: random.Random, actor: Actor, workers: list[Worker]) -> ev.Event | None:
    live = [w for w in workers if w.live]
    if len(live) < MAX_LIVE and chance.random() < 0.5:
        return b.requested(len(workers), actor.actor_id, revision=actor.revision)
    if not live:
        return None
    worker = chance.choice(live)
    number = names.worker_number(worker.worker_id, actor.actor_id) or 0
    of = {"actor_id": actor.actor_id}
    if worker.status is WorkerStatus.REQUESTED:
        made = b.ready if chance.random() < 0.7 else b.failed
        return made(number, **of, revision=worker.revision)
    choice = chance.random()
    if choice < 0.1:
        return b.lost(number, **of)
    if choice < 0.2:
        return b.failed(number, **of, revision=worker.revision, reason=f"broke {choice}")
    if worker.execution_id is None:
        return b.stopped(number, **of) if choice < 0.4 else b.stop_requested(number, **of)
    return None


def _control(chance: random.Random, runs: list[Execution], actor_id: str) -> ev.Event | None:
    choice = chance.random()
    if choice < 0.1 and runs:
        return ev.InboxPurged(actor_id=actor_id, up_to_ordinal=len(runs) - 1)
    if choice < 0.3:
        abandoned = [e for e in runs if e.status is ExecutionStatus.ERROR]
        if not abandoned:
            return None
        run = chance.choice(abandoned)
        return b.retry_requested(run.ordinal, actor_id, attempts=run.attempt)
    active = [e for e in runs if not e.ended and not e.halt_requested]
    if choice < 0.5 and active:
        return b.halt_requested(chance.choice(active).ordinal, actor_id)
    return None


def _change(chance: random.Random, actor: Actor) -> ev.Event:
    actor_id, choice = actor.actor_id, chance.random()
    if choice < 0.4:
        state = {"n": chance.randrange(100), "nul": "\x00"}
        return ev.ActorStateSet(actor_id=actor_id, state=state, version=actor.state_version + 1)
    if choice < 0.5:
        return b.updated(actor_id, actor.revision + 1)
    if choice < 0.7:
        return b.updated(actor_id, actor.revision, description=f"d{choice}")
    if actor.subscriptions and choice < 0.8:
        key = chance.choice(sorted(actor.subscriptions))
        return ev.ActorUnsubscribed(actor_id=actor_id, subscription_id=key)
    key = f"{actor_id}_sub_{chance.randrange(10**6)}"
    return ev.ActorSubscribed(actor_id=actor_id, subscription_id=key, event_pattern="nobody_0.>")


def _late(fold: Fold, actor_id: str) -> Iterator[ev.Event]:
    """What a worker still writes of what it runs when its actor is deleted."""
    runs = [e for key, e in fold.executions.items() if key[1] == actor_id and not e.ended]
    for run in runs:
        yield b.halt_requested(run.ordinal, actor_id)
        yield b.finished(run.ordinal, actor_id, attempt=run.attempt, worker_id=run.worker_id)
    yield b.received(len([key for key in fold.executions if key[1] == actor_id]), actor_id)
