import pytest

import builders as b
from abaco_proto import events as ev
from abaco_proto.errors import Undecodable
from abaco_worker.domain.work_item_state import WorkItemState, evolve, filters, initial_state


def after(work_item: ev.Event, *later: ev.Event) -> WorkItemState:
    state = initial_state(b.record(work_item, 5))
    for sequence, event in enumerate(later, 6):
        state = evolve(state, b.record(event, sequence))
    return state


def test_an_assignment_nothing_has_followed_is_wanted() -> None:
    state = after(b.assigned())
    assert state.run_wanted
    assert not state.run_started


def test_a_started_run_is_still_wanted() -> None:
    state = after(b.assigned(), b.started())
    assert state.run_wanted
    assert state.run_started


@pytest.mark.parametrize(
    "later",
    [
        [b.finished()],
        [b.started(), b.finished()],
        [b.assigned(attempt=2, worker_id="foo_0_wkr_1", host_id="h2")],
        [b.abandoned()],
        [b.lost()],
        [b.failed()],
        [b.stopped()],
        [b.stop_requested(), b.stopped()],
    ],
)
def test_a_run_that_is_over_or_belongs_to_another_is_not_wanted(later: list[ev.Event]) -> None:
    assert not after(b.assigned(), *later).run_wanted


@pytest.mark.parametrize(
    "later",
    [
        [b.finished(1), b.abandoned(2)],
        [b.lost(1), b.failed(2)],
        [b.stop_requested()],
        [b.requested(3)],
    ],
)
def test_what_happens_to_others_does_not_matter(later: list[ev.Event]) -> None:
    assert after(b.assigned(), *later).run_wanted


def test_a_later_attempt_on_the_same_worker_is_wanted_itself() -> None:
    state = after(b.assigned(attempt=3), b.started(attempt=1), b.finished(attempt=2))
    assert state.run_wanted
    assert not state.run_started


def test_a_request_is_open_until_it_is_answered() -> None:
    assert after(b.requested()).request_open
    ready = after(b.requested(), b.ready())
    assert not ready.request_open
    assert ready.worker_live
    stopping = after(b.requested(), b.stop_requested())
    assert not stopping.request_open
    assert stopping.worker_live
    for end in (b.failed(), b.lost(), b.stopped()):
        over = after(b.requested(), end)
        assert not over.request_open
        assert not over.worker_live


def test_a_stop_is_wanted_until_the_worker_is_gone() -> None:
    assert after(b.stop_requested()).worker_live
    assert not after(b.stop_requested(), b.stopped()).worker_live


def test_other_events_are_no_work_items() -> None:
    with pytest.raises(Undecodable):
        initial_state(b.record(b.ready()))


def test_only_the_actor_is_looked_at() -> None:
    assert filters(b.record(b.assigned())) == [
        "abaco.event.default.foo_0.execution.>",
        "abaco.event.default.foo_0.worker.>",
    ]
    assert filters(b.record(b.requested())) == ["abaco.event.default.foo_0.worker.>"]
