"""Histories, and what the read models must hold after them: the fold of proto, one by one.

The projector folds batches, with loads and bulk updates. Here is nothing of that: every aggregate
is folded over the whole history.
"""

from collections.abc import Callable

import msgspec
from hypothesis import strategies as st
from msgspec.structs import replace

import builders as b
from abaco_proto import actor, execution, worker
from abaco_proto import events as ev
from abaco_proto.actor import Actor, ActorStatus
from abaco_proto.envelope import Recorded
from abaco_proto.fold import States, Totals

TENANT = "default"
ACTORS = ("foo_0", "bar_0")


def events(actor_id: str) -> st.SearchStrategy[ev.Event]:
    """Any event of one actor, likely to fit the others."""
    number = st.integers(0, 2)
    ordinal = st.integers(0, 5)
    attempt = st.integers(1, 2)
    revision = st.integers(1, 2)
    sub = st.sampled_from(["sub_0", "sub_1"])

    def run(make: Callable[..., ev.Event], n: int, i: int, a: int) -> ev.Event:
        return make(n, actor_id, attempt=a, worker_id=f"{actor_id}_wkr_{i}")

    return st.one_of(
        ordinal.map(lambda n: b.received(n, actor_id)),
        ordinal.map(lambda n: b.received(n, actor_id, message="\x00")),
        st.builds(run, st.just(b.assigned), ordinal, number, attempt),
        st.builds(run, st.just(b.assigned), ordinal, number, attempt),
        st.builds(run, st.just(b.started), ordinal, number, attempt),
        st.builds(run, st.just(b.finished), ordinal, number, attempt),
        ordinal.map(lambda n: b.abandoned(n, actor_id)),
        st.builds(run, st.just(b.execution_failed), ordinal, number, attempt),
        ordinal.map(lambda n: b.retry_requested(n, actor_id)),
        ordinal.map(lambda n: b.halt_requested(n, actor_id)),
        ordinal.map(lambda n: ev.InboxPurged(actor_id=actor_id, up_to_ordinal=n)),
        number.map(lambda i: b.requested(i, actor_id)),
        st.builds(lambda i, r: b.ready(i, actor_id, revision=r), number, revision),
        st.builds(
            lambda i, kind, why: b.ready(i, actor_id, isolation=kind, isolation_reason=why),
            number,
            st.sampled_from(ev.Isolation),
            st.sampled_from(["", "no launcher"]),
        ),
        st.builds(lambda i, r: b.failed(i, actor_id, revision=r), number, revision),
        number.map(lambda i: b.failed(i, actor_id, reason="no\x00t found")),
        number.map(lambda i: b.stop_requested(i, actor_id)),
        number.map(lambda i: b.stopped(i, actor_id)),
        number.map(lambda i: b.lost(i, actor_id)),
        revision.map(lambda r: b.updated(actor_id, r)),
        st.builds(
            lambda v: ev.ActorStateSet(actor_id=actor_id, state={"\x00": v}, version=v),
            st.integers(1, 9),
        ),
        st.builds(
            lambda s, p: ev.ActorSubscribed(actor_id=actor_id, subscription_id=s, event_pattern=p),
            sub,
            st.sampled_from(["a", "b"]),
        ),
        sub.map(lambda s: ev.ActorUnsubscribed(actor_id=actor_id, subscription_id=s)),
        st.just(ev.ActorDeleted(actor_id=actor_id)),
    )


def histories(max_size: int = 60) -> st.SearchStrategy[list[Recorded]]:
    """Histories of two registered actors and a host, with unreadable events in between."""
    unreadable = st.sampled_from(
        [b.joined(), ev.Unrecognized(raw=b"\xff", reason="damage"), b.registered("foo_0")]
    )
    rest = st.lists(
        st.one_of(*map(events, ACTORS), *map(events, ACTORS), unreadable), max_size=max_size
    )
    return rest.map(lambda more: recorded([*map(b.registered, ACTORS), *more]))


def recorded(history: list[ev.Event]) -> list[Recorded]:
    """The events as a log would hold them; an unreadable event has a subject, too."""
    return [_record(event, n) for n, event in enumerate(history, 1)]


def _record(event: ev.Event, n: int) -> Recorded:
    if not isinstance(event, ev.Unrecognized):
        return b.history(*[event] * n)[-1]
    subject = f"abaco.event.{TENANT}.foo_0.moon.landed"
    return Recorded(
        sequence=n,
        subject=subject,
        tenant=TENANT,
        event=event,
        id=f"moon.{n}",
        time=b.T0,
        raw=event.raw,
    )


# -- what must come of it ------------------------------------------------------------------------


def reference(history: list[Recorded]) -> States:
    """All aggregates, folded one at a time."""
    actors = {a: _actor(a, history) for a in {_actor_id(r) for r in history} if a}
    executions = {
        (actor_id, ordinal): _execution(actor_id, ordinal, history)
        for actor_id, ordinal in {
            (r.event.actor_id, r.event.ordinal)
            for r in history
            if isinstance(r.event, ev.MessageReceived)
        }
    }
    workers = {
        r.event.worker_id: _worker(r.event.worker_id, history)
        for r in history
        if isinstance(r.event, ev.WorkerRequested)
    }
    return States(
        actors={(TENANT, a): state for a, state in actors.items()},
        totals={(TENANT, a): _totals(a, executions) for a in actors},
        executions={(TENANT, *key): state for key, state in executions.items()},
        workers={(TENANT, w): state for w, state in workers.items()},
    )


def _actor_id(recorded: Recorded) -> str:
    return getattr(recorded.event, "actor_id", "")


def _actor(actor_id: str, history: list[Recorded]) -> Actor:
    state = actor.INITIAL
    for recorded in history:
        if _actor_id(recorded) == actor_id:
            state = actor.evolve(state, recorded)
    return state


def _execution(actor_id: str, ordinal: int, history: list[Recorded]) -> execution.Execution:
    state, owner = execution.INITIAL, actor.INITIAL
    for recorded in history:
        event = recorded.event
        if _actor_id(recorded) != actor_id:
            continue
        owner = actor.evolve(owner, recorded)
        if isinstance(event, ev.MessageReceived) and event.ordinal != ordinal:
            continue
        state = execution.evolve(state, recorded)
        if owner.status is ActorStatus.DELETED:
            late = replace(recorded, event=ev.ActorDeleted(actor_id=actor_id))
            state = execution.evolve(state, late)
    return state


def _worker(worker_id: str, history: list[Recorded]) -> worker.Worker:
    state = worker.INITIAL
    for recorded in history:
        event = recorded.event
        if getattr(event, "worker_id", worker_id) == worker_id:
            state = worker.evolve(state, recorded)
    return state


def _totals(actor_id: str, executions: dict[tuple[str, int], execution.Execution]) -> Totals:
    own = [e for (owner, _), e in executions.items() if owner == actor_id]
    return Totals(
        total_executions=len(own),
        total_ended=sum(e.ended for e in own),
        total_complete=sum(e.status == "COMPLETE" for e in own),
        total_error=sum(e.status == "ERROR" for e in own),
        total_halted=sum(e.status == "HALTED" for e in own),
        total_purged=sum(e.status == "PURGED" for e in own),
        total_cpu_ns=sum(e.cpu_ns for e in own),
        total_io_bytes=sum(e.io_bytes for e in own),
        total_runtime_ms=sum(e.runtime_ms for e in own),
    )


def plain(states: States) -> States:
    """States with the actors' state as a value, however it is held."""
    actors = {
        key: replace(a, state=msgspec.json.decode(msgspec.json.encode(a.state)))
        for key, a in states.actors.items()
    }
    return replace(states, actors=actors)
