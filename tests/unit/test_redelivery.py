"""Every event delivered again, to each fold and each work queue: nothing is done twice."""

import asyncio
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import projections as p
from abaco_api.commands.actor_directory import ActorDirectories
from abaco_api.domain.control_state import INITIAL as NO_ORDER
from abaco_api.domain.control_state import evolve as evolve_order
from abaco_proto import actor, execution, worker
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_scheduler.domain.cluster import Cluster, apply_event
from fakes import InMemoryEventLog
from worker_stage import Stage

FOLDS: dict[str, tuple[Any, Callable[[Any, Recorded], Any]]] = {
    "actor": (actor.INITIAL, actor.evolve),
    "execution": (execution.INITIAL, execution.evolve),
    "worker": (worker.INITIAL, worker.evolve),
    "order": (NO_ORDER, evolve_order),
}


@pytest.mark.parametrize("name", FOLDS)
@given(history=p.histories(30))
def test_no_aggregate_changes_by_what_it_has_just_heard(name: str, history: list[Recorded]) -> None:
    state, evolve = FOLDS[name]
    for recorded in history:
        state = evolve(state, recorded)
        assert evolve(state, recorded) == state


@st.composite
def told_again(draw: st.DrawFn) -> tuple[list[Recorded], list[Recorded]]:
    """A history, and the same with each event told twice, and older ones again at any time."""
    history = draw(p.histories(30))
    told: list[Recorded] = []
    for n, recorded in enumerate(history, 1):
        told += [recorded, recorded]
        told += history[draw(st.integers(0, n)) : draw(st.integers(0, n))]
    return history, told


@settings(deadline=None)
@given(told_again())
def test_the_scheduler_knows_no_more_by_hearing_it_again(
    histories: tuple[list[Recorded], list[Recorded]],
) -> None:
    once, again = Cluster(), Cluster()
    for cluster, history in zip((once, again), histories, strict=True):
        for recorded in history:
            apply_event(cluster, deepcopy(recorded))
    assert again == once


@settings(deadline=None)
@given(told_again())
def test_the_directory_knows_no_more_by_hearing_it_again(
    histories: tuple[list[Recorded], list[Recorded]],
) -> None:
    once, again = (ActorDirectories(InMemoryEventLog()).of("default") for _ in histories)
    for directory, history in zip((once, again), histories, strict=True):
        for recorded in history:
            if isinstance(recorded.event, ev.Unrecognized) or ".actor." in recorded.subject:
                directory.apply(recorded)
    assert (again._entries, again._numbers) == (once._entries, once._numbers)


@pytest.mark.parametrize("eager", [True, False])
async def test_a_worker_that_is_handed_everything_again_runs_it_once(
    eager: bool,  # noqa: FBT001
) -> None:
    """While it runs, and after it was settled."""
    stage, count = Stage(), 20
    async with stage.service():
        await stage.register()
        await stage.request()
        await stage.until_seen(ev.WorkerReady)
        for n in range(count):
            await stage.send(n)
            assigned = await stage.assign(n)
            for _ in range(3):
                stage.queue.redeliver(assigned)
                await asyncio.sleep(0)
            if eager:
                stage.queue.redeliver_unsettled()
            await stage.until_seen(ev.ExecutionFinished, n + 1)
        await stage.until_idle()
        stage.queue.settled.clear()
        stage.queue.redeliver_unsettled()
        await stage.until(lambda: len(stage.queue.settled) == count + 1)
    assert len(stage.engine.starts) == count
    for kind in (ev.ExecutionStarted, ev.ExecutionFinished):
        ends = Counter(event.execution_id for event in stage.seen(kind))
        assert ends == {f"foo_0_exc_{n}": 1 for n in range(count)}
    assert len(stage.seen(ev.WorkerReady)) == 1
