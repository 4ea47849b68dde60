"""The aggregates: total folds, tables that say everything, and the rules beside them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import builders as b
from abaco_proto import actor, execution, worker
from abaco_proto import events as ev
from abaco_proto.actor import Actor, ActorStatus
from abaco_proto.execution import ENDED, Execution, ExecutionStatus
from abaco_proto.worker import LIVE, Worker, WorkerStatus

POISON = ev.Unrecognized(raw=b"\xff", reason="not JSON")
SOUP = st.lists(st.sampled_from([*b.EXAMPLES, POISON, b.received(0), b.assigned(0)]), max_size=30)


def fold_actor(*events: ev.Event) -> Actor:
    state = actor.INITIAL
    for recorded in b.history(*events):
        state = actor.evolve(state, recorded)
    return state


def fold_execution(*events: ev.Event) -> Execution:
    state = execution.INITIAL
    for recorded in b.history(*events):
        state = execution.evolve(state, recorded)
    return state


def fold_worker(*events: ev.Event) -> Worker:
    state = worker.INITIAL
    for recorded in b.history(*events):
        state = worker.evolve(state, recorded)
    return state


@given(SOUP)
def test_every_fold_is_total(events: list[ev.Event]) -> None:
    fold_actor(*events)
    fold_execution(*events)
    fold_worker(*events)


@given(SOUP)
def test_a_step_is_in_the_table_or_does_not_happen(events: list[ev.Event]) -> None:
    state = execution.INITIAL
    for recorded in b.history(*events):
        before, state = state, execution.evolve(state, recorded)
        if before != state:
            step = (before.status, execution._signal(before, recorded.event))
            assert execution.TRANSITIONS[step] == state.status


@pytest.mark.parametrize("status", sorted(ENDED))
def test_an_execution_that_ended_stays_ended(status: ExecutionStatus) -> None:
    ways_on = {event for before, event in execution.TRANSITIONS if before is status}
    assert ways_on == ({"execution.retry_requested"} if status == "ERROR" else set())


@pytest.mark.parametrize("status", sorted(set(WorkerStatus) - LIVE - {WorkerStatus.UNKNOWN}))
def test_a_worker_that_is_gone_stays_gone(status: WorkerStatus) -> None:
    assert not [step for step in worker.TRANSITIONS if step[0] == status]


def test_every_status_can_be_reached() -> None:
    assert {*actor.TRANSITIONS.values(), ActorStatus.UNREGISTERED} == set(ActorStatus)
    assert {*execution.TRANSITIONS.values(), ExecutionStatus.UNKNOWN} == set(ExecutionStatus)
    assert {*worker.TRANSITIONS.values(), WorkerStatus.UNKNOWN} == set(WorkerStatus)


@given(SOUP, st.integers(0, 30))
def test_an_event_twice_in_a_row_changes_nothing_more(events: list[ev.Event], at: int) -> None:
    repeated = b.history(*events)
    repeated[at:at] = repeated[at - 1 : at] if at else []
    once = twice = execution.INITIAL
    for recorded in b.history(*events):
        once = execution.evolve(once, recorded)
    for recorded in repeated:
        twice = execution.evolve(twice, recorded)
    assert once == twice


# -- actor ---------------------------------------------------------------------------------------


def test_an_actor_becomes_ready_with_its_first_worker() -> None:
    assert fold_actor(b.registered()).status is ActorStatus.SUBMITTED
    assert fold_actor(b.registered(), b.requested(), b.ready()).status is ActorStatus.READY


def test_a_failure_says_why_and_an_update_clears_it() -> None:
    state = fold_actor(b.registered(), b.failed(reason="no such image"))
    assert (state.status, state.status_message) == (ActorStatus.ERROR, "no such image")
    state = fold_actor(b.registered(), b.failed(), b.updated(revision=1))
    assert (state.status, state.status_message) == (ActorStatus.SUBMITTED, "")


def test_an_update_of_the_image_needs_a_new_worker_an_update_of_the_rest_does_not() -> None:
    assert fold_actor(b.registered(), b.ready(), b.updated(revision=2)).status == "SUBMITTED"
    assert fold_actor(b.registered(), b.ready(), b.updated(revision=1)).status == "READY"


def test_a_run_that_starts_proves_an_error_wrong() -> None:
    failed = [b.registered(), b.failed(0)]
    assert fold_actor(*failed, b.started(0)).status is ActorStatus.READY
    assert fold_actor(*failed, b.started(0, revision=2)).status is ActorStatus.ERROR


def test_workers_of_an_old_revision_have_no_say() -> None:
    state = fold_actor(b.registered(), b.updated(revision=2), b.failed(revision=1))
    assert state.status is ActorStatus.SUBMITTED


def test_workers_do_not_move_the_sequence_decisions_are_made_on() -> None:
    assert fold_actor(b.registered(), b.requested(), b.ready()).sequence == 1


def test_subscriptions_come_and_go() -> None:
    subscribed = ev.ActorSubscribed(actor_id="foo_0", subscription_id="s", event_pattern="*")
    gone = ev.ActorUnsubscribed(actor_id="foo_0", subscription_id="s")
    assert fold_actor(b.registered(), subscribed).subscriptions == {"s": "*"}
    assert fold_actor(b.registered(), subscribed, gone).subscriptions == {}


def test_a_deleted_actor_does_not_exist() -> None:
    deleted = ev.ActorDeleted(actor_id="foo_0")
    assert fold_actor(b.registered()).exists
    assert not fold_actor(b.registered(), deleted).exists
    assert not fold_actor(b.registered(), deleted, b.ready()).exists


# -- execution -----------------------------------------------------------------------------------


def test_the_life_of_an_execution() -> None:
    state = fold_execution(b.received(7), b.assigned(7), b.started(7), b.finished(7, exit_code=3))
    assert (state.status, state.exit_code, state.attempt) == (ExecutionStatus.COMPLETE, 3, 1)
    assert state.runtime_ms > 0
    assert state.message_sequence == 1


def test_only_the_latest_attempt_speaks() -> None:
    events = [b.received(0), b.assigned(0), b.started(0), b.assigned(0, attempt=2)]
    assert fold_execution(*events, b.finished(0, attempt=1)).status is ExecutionStatus.ASSIGNED
    assert fold_execution(*events, b.finished(0, attempt=2)).status is ExecutionStatus.COMPLETE


def test_an_older_assignment_does_not_supersede_a_later_one() -> None:
    state = fold_execution(b.received(0), b.assigned(0, attempt=2), b.assigned(0, attempt=1))
    assert state.attempt == 2


def test_what_waits_can_be_ended_without_running() -> None:
    halt = ev.ExecutionHaltRequested(actor_id="foo_0", execution_id="foo_0_exc_0")
    assert fold_execution(b.received(0), halt).status is ExecutionStatus.HALTED
    purge = ev.InboxPurged(actor_id="foo_0", up_to_ordinal=4)
    assert fold_execution(b.received(4), purge).status is ExecutionStatus.PURGED
    assert fold_execution(b.received(5), purge).status is ExecutionStatus.SUBMITTED
    gone = ev.ActorDeleted(actor_id="foo_0")
    assert fold_execution(b.received(0), gone).status is ExecutionStatus.PURGED


def test_what_runs_is_asked_to_halt_not_ended() -> None:
    halt = ev.ExecutionHaltRequested(actor_id="foo_0", execution_id="foo_0_exc_0")
    state = fold_execution(b.received(0), b.assigned(0), b.started(0), halt)
    assert (state.status, state.halt_requested) == (ExecutionStatus.RUNNING, True)


def test_a_run_that_was_halted_says_so_whatever_its_exit_code() -> None:
    state = b.final_state(exit_code=143, ended_by=ev.EndedBy.HALT)
    run = [b.received(0), b.assigned(0), b.started(0), b.halt_requested(0)]
    halted = fold_execution(*run, b.finished(0, exit_code=143, final_state=state))
    assert (halted.status, halted.exit_code) == (ExecutionStatus.HALTED, 143)
    in_time = fold_execution(*run, b.finished(0))
    assert in_time.status is ExecutionStatus.COMPLETE


def test_an_attempt_that_failed_waits_for_the_next() -> None:
    failed = [b.received(0), b.assigned(0), b.started(0), b.execution_failed(0)]
    state = fold_execution(*failed)
    assert (state.status, state.attempt) == (ExecutionStatus.SUBMITTED, 1)
    assert fold_execution(*failed, b.assigned(0, attempt=2), b.finished(0, attempt=2)).ended
    assert fold_execution(*failed, b.halt_requested(0)).status is ExecutionStatus.HALTED


@pytest.mark.parametrize("end", [b.execution_failed(0), b.abandoned(0)])
def test_what_was_to_halt_is_not_tried_again(end: ev.Event) -> None:
    state = fold_execution(b.received(0), b.assigned(0), b.halt_requested(0), end)
    assert state.status is ExecutionStatus.HALTED


def test_what_was_abandoned_can_be_sent_again() -> None:
    given_up = [b.received(0), b.assigned(0), b.abandoned(0), b.retry_requested(0)]
    state = fold_execution(*given_up)
    assert (state.status, state.finished_at) == (ExecutionStatus.SUBMITTED, None)
    assert fold_execution(*given_up, b.assigned(0, attempt=4)).status is ExecutionStatus.ASSIGNED


# -- worker --------------------------------------------------------------------------------------


def test_the_life_of_a_worker() -> None:
    events = [b.requested(), b.ready(), b.assigned(0)]
    assert fold_worker(*events).status is WorkerStatus.BUSY
    assert fold_worker(*events, b.started(0), b.finished(0)).status is WorkerStatus.READY
    assert fold_worker(*events, b.stop_requested(), b.finished(0)).status is WorkerStatus.STOPPING
    assert fold_worker(*events, b.stop_requested(), b.finished(0), b.stopped()).status == "STOPPED"


def test_a_worker_minds_only_its_own_affairs() -> None:
    events = [b.requested(), b.ready(), b.assigned(0)]
    state = fold_worker(*events, b.finished(1), b.failed(1), b.lost(1), b.stopped(1))
    assert state.status is WorkerStatus.BUSY


def test_a_lost_worker_has_no_say() -> None:
    assert fold_worker(b.requested(), b.lost(), b.ready()).status is WorkerStatus.LOST


def test_a_worker_has_the_isolation_that_it_became_ready_with() -> None:
    limited = b.ready(isolation=ev.Isolation.CONTAINER, isolation_reason="no launcher")
    found = fold_worker(b.requested(), limited, b.assigned(0))
    assert (found.isolation, found.isolation_reason) == ("container", "no launcher")
    able = fold_worker(b.requested(), b.ready(isolation=ev.Isolation.SANDBOX))
    assert (able.isolation, able.isolation_reason) == ("sandbox", "")
    older = fold_worker(b.requested(), b.ready())
    assert (older.isolation, older.isolation_reason) == (None, "")
