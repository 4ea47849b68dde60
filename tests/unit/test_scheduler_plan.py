"""The scheduler's decisions, one situation at a time: given a history, then a plan."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

import builders as b
from abaco_proto import events as ev
from abaco_proto.envelope import from_message
from abaco_proto.heartbeat import Heartbeat
from abaco_scheduler.domain import cluster as cluster_module
from abaco_scheduler.domain.cluster import Cluster, apply_event
from abaco_scheduler.domain.cluster_snapshot import encode
from abaco_scheduler.domain.decision import Decision, Now
from abaco_scheduler.domain.plan import plan
from abaco_scheduler.domain.policy import Policy

POLICY = Policy(worker_retry_seconds=10, worker_ttl_seconds=300, max_attempts=3)


def given(*events: ev.Event) -> Cluster:
    cluster = Cluster()
    for recorded in b.history(*events):
        apply_event(cluster, recorded)
    for host in cluster.hosts.values():
        cluster.record_heartbeat(
            Heartbeat(host_id=host.host_id, capacity=host.capacity), "default", 100.0
        )
    return cluster


def decide(cluster: Cluster, after: float = 60, silence: float = 0) -> list[ev.Event]:
    """What is decided ``after`` seconds of the history's time, ``silence`` since the heartbeats."""
    now = Now(time=b.T0 + timedelta(seconds=after), monotonic=100.0 + silence, connected_since=0.0)
    return [decision.event for decision in plan(cluster, POLICY, now)]


def kinds(events: list[ev.Event]) -> list[str]:
    return [ev.type_of(event) for event in events]


JOINED = b.joined()
ONE_READY = (JOINED, b.registered(min_workers=1), b.requested(0), b.ready(0))


def test_nothing_to_do_is_no_events() -> None:
    assert decide(given()) == []
    assert decide(given(*ONE_READY)) == []


def test_a_new_actor_gets_its_minimum_one_request_at_a_time() -> None:
    cluster = given(JOINED, b.registered(min_workers=2))
    [request] = decide(cluster)
    assert isinstance(request, ev.WorkerRequested)
    assert (request.worker_id, request.host_id, request.actor_sequence) == ("foo_0_wkr_0", "h1", 2)
    apply_event(cluster, b.record(request, 3))
    [second] = decide(cluster)
    assert isinstance(second, ev.WorkerRequested)
    assert second.worker_id == "foo_0_wkr_1"


def test_without_a_host_there_is_no_request() -> None:
    assert decide(given(b.registered())) == []


def test_an_actor_without_minimum_gets_a_worker_when_a_message_comes() -> None:
    cluster = given(JOINED, b.registered(min_workers=0))
    assert decide(cluster) == []
    apply_event(cluster, b.record(b.received(0), 3))
    assert kinds(decide(cluster)) == ["worker.requested"]


def test_messages_are_assigned_in_the_order_of_the_inbox() -> None:
    cluster = given(
        JOINED,
        b.registered(min_workers=2),
        b.requested(0),
        b.requested(1),
        b.ready(1),
        b.ready(0),
        b.received(0),
        b.received(1),
        b.received(2),
    )
    first, second = (e for e in decide(cluster) if isinstance(e, ev.ExecutionAssigned))
    assert (first.ordinal, first.message_sequence) == (0, 7)
    assert (second.ordinal, second.message_sequence) == (1, 8)
    assert {first.worker_id, second.worker_id} == {"foo_0_wkr_0", "foo_0_wkr_1"}
    assert first.attempt == second.attempt == 1


def test_a_backlog_brings_workers_up_to_the_maximum() -> None:
    busy = [*ONE_READY, b.received(0), b.assigned(0)]
    more = decide(given(*busy, b.received(1)))
    assert kinds(more) == ["worker.requested"]
    full = [JOINED, b.registered(min_workers=1, max_workers=1), b.requested(0), b.ready(0)]
    assert decide(given(*full, b.received(0), b.assigned(0), b.received(1))) == []


def test_a_stateful_actor_has_one_worker_and_one_message_at_a_time() -> None:
    cluster = given(
        JOINED, b.registered(stateless=False, min_workers=1), b.received(0), b.received(1)
    )
    assert kinds(decide(cluster)) == ["worker.requested"]
    apply_event(cluster, b.record(b.requested(0), 5))
    assert decide(cluster) == []
    apply_event(cluster, b.record(b.ready(0), 6))
    assert kinds(decide(cluster)) == ["execution.assigned"]
    apply_event(cluster, b.record(b.assigned(0, message_sequence=3), 7))
    assert decide(cluster) == []


def test_an_update_replaces_the_workers_and_the_old_ones_get_no_message() -> None:
    cluster = given(*ONE_READY, b.updated(min_workers=1), b.received(0))
    decided = decide(cluster)
    assert kinds(decided) == ["worker.stop_requested", "worker.requested"]
    assert isinstance(decided[1], ev.WorkerRequested)
    assert decided[1].revision == 2


def test_the_workers_of_a_deleted_actor_are_stopped() -> None:
    cluster = given(*ONE_READY, b.received(0), ev.ActorDeleted(actor_id="foo_0"))
    assert kinds(decide(cluster)) == ["worker.stop_requested"]
    apply_event(cluster, b.record(b.stopped(0), 7))
    assert not cluster.actors


RUNNING: tuple[ev.Event, ...] = (*ONE_READY, b.received(0), b.assigned(0), b.started(0))
DELETED = ev.ActorDeleted(actor_id="foo_0")


def test_what_a_deleted_actor_runs_is_halted_once() -> None:
    cluster = given(*RUNNING, b.received(1), DELETED)
    assert kinds(decide(cluster)) == ["execution.halt_requested", "worker.stop_requested"]
    apply_event(cluster, b.record(b.halt_requested(0), 10))
    assert kinds(decide(cluster)) == ["worker.stop_requested"]
    halted = b.finished(0, final_state=b.final_state(ended_by=ev.EndedBy.HALT))
    for n, event in enumerate((b.stop_requested(0), halted, b.stopped(0)), 11):
        apply_event(cluster, b.record(event, n))
    assert not cluster.actors
    assert not any(cluster.worker_counts.values())


def test_a_person_who_halted_it_already_is_enough() -> None:
    assert kinds(decide(given(*RUNNING, b.halt_requested(0), DELETED))) == ["worker.stop_requested"]


def test_what_a_deleted_actor_ran_on_a_lost_host_ends_as_halted() -> None:
    cluster = given(*RUNNING, DELETED, b.halt_requested(0), b.lost(0))
    found = abandonment(decide(cluster))
    assert (found.execution_id, found.reason) == ("foo_0_exc_0", "the actor was deleted")
    apply_event(cluster, b.record(found, 11))
    assert not cluster.actors


def test_a_message_that_was_assigned_after_the_deletion_is_halted_where_it_runs() -> None:
    cluster = given(*ONE_READY, b.received(0), DELETED, b.assigned(0))
    assert kinds(decide(cluster)) == [
        "execution.abandoned",
        "execution.halt_requested",
        "worker.stop_requested",
    ]


def test_an_older_attempt_that_comes_late_does_not_halt_the_one_that_counts() -> None:
    again = (b.requested(1), b.ready(1), b.assigned(0, attempt=2, worker_id="foo_0_wkr_1"))
    late = (b.requested(2), b.ready(2), b.assigned(0, attempt=1, worker_id="foo_0_wkr_2"))
    cluster = given(*RUNNING, b.lost(0), *again, *late)
    assert "execution.halt_requested" not in kinds(decide(cluster))


def test_a_lost_host_takes_its_workers_and_their_messages_are_tried_again() -> None:
    cluster = given(*ONE_READY, b.received(0), b.assigned(0, message_sequence=5))
    assert kinds(decide(cluster, silence=16)) == ["host.lost"]
    apply_event(cluster, b.record(ev.HostLost(host_id="h1", reason="silent"), 7))
    assert kinds(decide(cluster, silence=17)) == ["worker.lost"]
    apply_event(cluster, b.record(b.lost(0), 8))
    for n, event in enumerate((b.joined("h2"), b.requested(1, host_id="h2")), 9):
        apply_event(cluster, b.record(event, n))
    apply_event(cluster, b.record(b.ready(1, host_id="h2"), 11))
    cluster.record_heartbeat(Heartbeat(host_id="h2", capacity=16), "default", 117.0)
    [again] = decide(cluster, silence=17)
    assert isinstance(again, ev.ExecutionAssigned)
    assert (again.attempt, again.host_id, again.message_sequence) == (2, "h2", 5)


def test_a_host_is_not_lost_while_no_heartbeat_could_arrive() -> None:
    cluster = given(*ONE_READY)
    now = Now(time=b.T0, monotonic=1000.0, connected_since=999.0)
    assert plan(cluster, POLICY, now) == []


def test_a_host_that_comes_back_joins_again() -> None:
    cluster = given(JOINED, ev.HostLost(host_id="h1", reason="silent"))
    assert kinds(decide(cluster)) == ["host.joined"]


def test_of_hosts_that_never_come_back_only_the_last_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster_module, "MAX_LOST_HOSTS", 5)
    lives = [(b.joined(f"h-{n}"), ev.HostLost(host_id=f"h-{n}", reason="")) for n in range(20)]
    cluster = Cluster()
    first = (b.joined("busy"), b.registered(), b.requested(0, host_id="busy"))
    gone = ev.HostLost(host_id="busy", reason="")
    for recorded in b.history(*first, gone, *(event for life in lives for event in life)):
        apply_event(cluster, recorded)
    assert [*cluster.hosts] == ["busy", *(f"h-{n}" for n in range(15, 20))]


def test_what_no_decision_depends_on_is_not_kept() -> None:
    large = "x" * 100_000
    subscribed = ev.ActorSubscribed(actor_id="foo_0", subscription_id="s", event_pattern=large)
    state = ev.ActorStateSet(actor_id="foo_0", state=large, version=1)
    changes: dict[str, Any] = {"default_environment": {"A": large}, "description": large}
    cluster = given(b.registered(**changes), subscribed, state, b.updated(**changes), subscribed)
    assert len(encode(cluster, "", "", b.T0)) < 10_000


def test_a_host_with_another_capacity_joins_again() -> None:
    cluster = given(JOINED)
    cluster.record_heartbeat(Heartbeat(host_id="h1", capacity=3), "default", 100.0)
    [joined] = decide(cluster)
    assert isinstance(joined, ev.HostJoined)
    assert joined.capacity == 3


def test_attempts_run_out() -> None:
    events: list[ev.Event] = [JOINED, b.registered(min_workers=1), b.received(0)]
    for n in range(3):
        events += [b.requested(n), b.ready(n)]
        events += [b.assigned(0, attempt=n + 1, worker_id=f"foo_0_wkr_{n}"), b.lost(n)]
    decided = decide(given(*events))
    assert "execution.abandoned" in kinds(decided)
    abandoned = next(e for e in decided if isinstance(e, ev.ExecutionAbandoned))
    assert (abandoned.attempts, abandoned.reason) == (3, "worker foo_0_wkr_2: host h1 is lost")


def test_an_actor_in_error_is_tried_again_after_a_pause_that_grows() -> None:
    first = [JOINED, b.registered(min_workers=2), b.requested(0), b.failed(0)]  # fails at 4 s
    assert decide(given(*first), after=13) == []
    assert kinds(decide(given(*first), after=14)) == ["worker.requested"]
    second = [*first, b.requested(1), b.failed(1)]  # fails at 6 s
    assert decide(given(*second), after=25) == []
    assert kinds(decide(given(*second), after=26)) == ["worker.requested"]


def test_an_update_ends_the_pause() -> None:
    failed = [JOINED, b.registered(min_workers=1), b.requested(0), b.failed(0)]
    assert kinds(decide(given(*failed, b.updated(revision=2, min_workers=1)), after=5)) == [
        "worker.requested"
    ]


def test_idle_workers_above_the_minimum_go_after_their_time() -> None:
    cluster = given(JOINED, b.registered(min_workers=0), b.requested(0), b.ready(0))
    assert decide(cluster, after=303) == []
    assert kinds(decide(cluster, after=304)) == ["worker.stop_requested"]


def test_a_full_host_takes_no_more() -> None:
    cluster = given(b.joined(capacity=1), b.registered(min_workers=2), b.requested(0), b.ready(0))
    assert decide(cluster) == []


def test_an_idle_worker_is_preempted_for_an_actor_without_one() -> None:
    base = [b.joined(capacity=2), b.registered(min_workers=2)]
    base += [b.requested(0), b.requested(1), b.ready(0), b.ready(1)]
    cluster = given(*base, b.registered("bar_0", min_workers=1))
    [stop] = decide(cluster)
    assert isinstance(stop, ev.WorkerStopRequested)
    assert stop.reason == "actor bar_0 needs the slot"
    apply_event(cluster, b.record(stop, 8))
    assert decide(cluster) == []
    apply_event(cluster, b.record(b.stopped(0), 9))
    [request] = decide(cluster)
    assert isinstance(request, ev.WorkerRequested)
    assert request.actor_id == "bar_0"


def three_idle(min_workers: int, max_workers: int = 4) -> list[ev.Event]:
    definition = b.registered(min_workers=min_workers, max_workers=max_workers)
    numbers = range(3)
    return [
        b.joined(capacity=4),
        definition,
        *(b.requested(n) for n in numbers),
        *(b.ready(n) for n in numbers),
    ]


def test_min_workers_preempts_a_surplus_worker_but_not_one_of_the_minimum() -> None:
    newcomer = [b.registered("bar_0", min_workers=2), b.requested(0, "bar_0"), b.ready(0, "bar_0")]
    [stop] = decide(given(*three_idle(2), *newcomer))
    assert isinstance(stop, ev.WorkerStopRequested)
    assert (stop.actor_id, stop.reason) == ("foo_0", "actor bar_0 needs the slot")
    assert decide(given(*three_idle(3), *newcomer)) == []


def test_messages_preempt_one_of_the_minimum_but_not_the_last_worker() -> None:
    busy = [b.registered("bar_0", min_workers=1), b.requested(0, "bar_0"), b.ready(0, "bar_0")]
    busy += [b.received(0, "bar_0"), b.assigned(0, "bar_0", worker_id="bar_0_wkr_0")]
    busy += [b.received(1, "bar_0")]
    assert kinds(decide(given(*three_idle(3), *busy))) == ["worker.stop_requested"]
    one = [b.joined(capacity=2), b.registered(min_workers=1), b.requested(0), b.ready(0)]
    assert decide(given(*one, *busy)) == []


def test_a_busy_worker_is_not_preempted() -> None:
    base = [b.joined(capacity=1), b.registered(min_workers=1), b.requested(0), b.ready(0)]
    cluster = given(*base, b.received(0), b.assigned(0), b.registered("bar_0"))
    assert decide(cluster) == []


def test_the_emptiest_host_gets_the_next_worker() -> None:
    cluster = given(b.joined("h1", 4), b.joined("h2", 4), b.registered(), b.requested(0))
    [request] = decide(cluster)
    assert isinstance(request, ev.WorkerRequested)
    assert request.host_id == "h2"


def tried(*, attempts: int = 1) -> list[ev.Event]:
    """Attempts that failed, each on the same worker; the last one fails at 5 + 2 n seconds."""
    events: list[ev.Event] = [*ONE_READY]
    events += [b.received(0)]
    for n in range(1, attempts + 1):
        events += [b.assigned(0, attempt=n, message_sequence=5), b.execution_failed(0, attempt=n)]
    return events


def abandonment(events: list[ev.Event]) -> ev.ExecutionAbandoned:
    [found] = [event for event in events if isinstance(event, ev.ExecutionAbandoned)]
    return found


def test_an_attempt_that_failed_is_followed_by_another_after_a_pause_that_doubles() -> None:
    first = given(*tried())  # fails at 7 s
    assert decide(first, after=7.9) == []
    [again] = decide(first, after=8)
    assert isinstance(again, ev.ExecutionAssigned)
    assert (again.attempt, again.message_sequence, again.worker_id) == (2, 5, "foo_0_wkr_0")
    second = given(*tried(attempts=2))  # fails at 9 s
    assert decide(second, after=10.9) == []
    assert kinds(decide(second, after=11)) == ["execution.assigned"]


def test_the_pause_has_an_end() -> None:
    policy = Policy(retry_seconds=1, retry_max_seconds=3, max_attempts=9)
    cluster = given(*tried(attempts=7))  # fails at 19 s
    moment = b.T0 + timedelta(seconds=22)
    [decision] = plan(cluster, policy, Now(time=moment, monotonic=100, connected_since=0))
    assert isinstance(decision.event, ev.ExecutionAssigned)


def test_while_one_pauses_the_others_go_on_but_not_past_a_stateful_one() -> None:
    free = given(*tried(), b.received(1))
    [assignment, *_] = decide(free, after=7)
    assert isinstance(assignment, ev.ExecutionAssigned)
    assert assignment.ordinal == 1
    events = tried()
    events[1] = b.registered(min_workers=1, max_workers=1, stateless=False)
    strict = given(*events, b.received(1))
    assert decide(strict, after=7.9) == []
    [again] = decide(strict, after=8)
    assert isinstance(again, ev.ExecutionAssigned)
    assert again.ordinal == 0


def test_failures_run_out_and_the_last_reason_is_kept() -> None:
    found = abandonment(decide(given(*tried(attempts=3)), after=11))
    assert (found.attempts, found.reason) == (3, "the container was killed from outside")


def test_a_person_grants_as_many_attempts_again() -> None:
    events = [*tried(attempts=3), b.abandoned(0), b.retry_requested(0)]
    [again] = decide(given(*events), after=13)
    assert isinstance(again, ev.ExecutionAssigned)
    assert (again.attempt, again.message_sequence) == (4, 5)
    for n in (4, 5):
        events += [b.assigned(0, attempt=n), b.execution_failed(0, attempt=n)]
    assert kinds(decide(given(*events), after=60)) == ["execution.assigned"]
    events += [b.assigned(0, attempt=6), b.execution_failed(0, attempt=6)]
    assert abandonment(decide(given(*events), after=60)).attempts == 6


def test_what_pauses_after_a_failure_is_ended_by_halt_purge_and_deletion() -> None:
    ends = (
        b.halt_requested(0),
        ev.InboxPurged(actor_id="foo_0", up_to_ordinal=0),
        ev.ActorDeleted(actor_id="foo_0"),
    )
    for end in ends:
        decided = kinds(decide(given(*tried(), end)))
        assert not {"execution.assigned", "execution.abandoned"} & set(decided)


def test_what_lost_its_worker_is_ended_by_a_halt_but_not_by_a_purge() -> None:
    ran: list[ev.Event] = [*ONE_READY, b.received(0), b.assigned(0), b.lost(0)]
    ran += [b.requested(1), b.ready(1)]
    purged = given(*ran, ev.InboxPurged(actor_id="foo_0", up_to_ordinal=0))
    assert kinds(decide(purged)) == ["execution.assigned"]
    found = abandonment(decide(given(*ran, b.halt_requested(0))))
    assert (found.attempts, found.reason) == (1, "halted; worker foo_0_wkr_0: host h1 is lost")


def test_what_is_halted_on_its_worker_stays_there() -> None:
    ran: list[ev.Event] = [*ONE_READY, b.received(0), b.assigned(0), b.halt_requested(0)]
    assert decide(given(*ran)) == []
    assert decide(given(*ran, b.execution_failed(0))) == []  # the fold has ended it


def test_a_worker_that_was_given_something_too_late_is_freed() -> None:
    cluster = given(*ONE_READY, b.received(0), b.halt_requested(0), b.assigned(0), b.received(1))
    found = abandonment(decide(cluster))
    assert (found.execution_id, found.attempts) == ("foo_0_exc_0", 1)
    apply_event(cluster, b.record(found, 9))
    assert kinds(decide(cluster)) == ["execution.assigned"]


def test_the_worker_that_is_idle_the_longest_is_next() -> None:
    two = [JOINED, b.registered(min_workers=2), b.requested(0), b.requested(1)]
    two += [b.ready(0), b.ready(1), b.received(0), b.assigned(0), b.finished(0)]
    [assignment] = decide(given(*two, b.received(1)))
    assert isinstance(assignment, ev.ExecutionAssigned)
    assert assignment.worker_id == "foo_0_wkr_1"


def test_a_worker_for_messages_that_wait_need_not_be_warm() -> None:
    def warm(*events: ev.Event) -> bool:
        [request] = [e for e in decide(given(JOINED, *events)) if isinstance(e, ev.WorkerRequested)]
        return request.warm

    assert warm(b.registered(min_workers=1))
    assert not warm(b.registered(min_workers=0), b.received(0))
    one = [b.registered(min_workers=1), b.requested(0), b.ready(0), b.received(0), b.assigned(0)]
    assert not warm(*one, b.received(1))


def test_decisions_continue_the_chain_of_a_message() -> None:
    cluster = Cluster()
    plain = b.history(*ONE_READY, b.received(0))
    chained = replace(b.record(b.received(1), 6), correlation_id="bar_0_exc_7.received", hops=3)
    for recorded in (*plain, chained):
        apply_event(cluster, recorded)
    assert list(cluster.actors["default", "foo_0"].inbox.origins) == [1]

    def decided(number: int) -> Decision:
        moment = b.T0 + timedelta(seconds=60)
        found = plan(cluster, POLICY, Now(time=moment, monotonic=1, connected_since=0))
        kind = (ev.ExecutionAssigned, ev.ExecutionAbandoned)
        [decision, *_] = [d for d in found if isinstance(d.event, kind)]
        apply_event(cluster, b.record(decision.event, number))
        return decision

    first = decided(7)
    assert (first.correlation_id, first.hops) == ("foo_0_exc_0.received", 0)
    apply_event(cluster, b.record(b.finished(0), 8))
    second = decided(9)
    assert (second.correlation_id, second.hops) == ("bar_0_exc_7.received", 3)
    apply_event(cluster, b.record(b.lost(0), 10))
    apply_event(cluster, b.record(b.halt_requested(1), 11))
    third = decided(12)
    assert ev.type_of(third.event) == "execution.abandoned"
    assert (third.correlation_id, third.hops) == ("bar_0_exc_7.received", 3)
    assert not cluster.actors["default", "foo_0"].inbox.origins


def test_a_failure_and_a_retry_are_the_causes_of_the_next_attempt() -> None:
    def cause(*events: ev.Event) -> str:
        moment = Now(time=b.T0 + timedelta(seconds=60), monotonic=100, connected_since=0)
        found = plan(given(*events), POLICY, moment)
        [decision] = [d for d in found if isinstance(d.event, ev.ExecutionAssigned)]
        return decision.causation_id

    assert cause(*tried()) == "foo_0_exc_0.failed.1"
    again = cause(*tried(attempts=3), b.abandoned(0), b.retry_requested(0))
    assert again == "foo_0_exc_0.retry_requested.3"


def test_what_was_halted_or_purged_never_runs() -> None:
    halted = ev.ExecutionHaltRequested(actor_id="foo_0", execution_id="foo_0_exc_1")
    cluster = given(*ONE_READY, b.received(0), b.received(1), b.received(2), b.received(3), halted)
    apply_event(cluster, b.record(ev.InboxPurged(actor_id="foo_0", up_to_ordinal=0), 10))
    [assignment, *_] = decide(cluster)
    assert isinstance(assignment, ev.ExecutionAssigned)
    assert assignment.ordinal == 2


def test_an_assignment_has_the_sequence_of_the_state() -> None:
    state = ev.ActorStateSet(actor_id="foo_0", state=1, version=1)
    [without] = decide(given(*ONE_READY, b.received(0)))
    [with_state] = decide(given(*ONE_READY, state, b.received(0)))
    assert isinstance(without, ev.ExecutionAssigned)
    assert isinstance(with_state, ev.ExecutionAssigned)
    assert (without.state_sequence, with_state.state_sequence) == (0, 5)


def test_an_event_that_cannot_be_decoded_moves_the_heads_of_conditions() -> None:
    """A condition counts the events of its subjects, readable or not."""
    prefix = "abaco.event.default"
    cluster = given(*ONE_READY, b.received())
    for n, subject in enumerate(
        (
            f"{prefix}.foo_0.execution.assigned.h1",
            f"{prefix}._host-h1.host.joined",
            f"{prefix}.bar_0.worker.requested.h1",
            f"{prefix}.foo_0.execution.assigned.h1.and.more",
        ),
        start=90,
    ):
        apply_event(cluster, from_message(n, subject, None, b"\xff"))
    assert cluster.actors["default", "foo_0"].assignment_sequence == 90
    assert cluster.hosts["h1"].sequence == 91
    assert cluster.worker_request_sequence == 92


# -- a worker that a person stopped --------------------------------------------------------------


TWO_READY = (
    JOINED,
    b.registered(min_workers=2),
    b.requested(0),
    b.requested(1),
    b.ready(0),
    b.ready(1),
)
REQUESTED_BY_CLIENT = (b.stop_requested(1, reason=ev.REQUESTED_BY_CLIENT), b.stopped(1))


def test_a_worker_that_a_person_stopped_is_not_replaced_while_nothing_waits() -> None:
    assert decide(given(*TWO_READY, *REQUESTED_BY_CLIENT)) == []
    assert decide(given(*TWO_READY, *REQUESTED_BY_CLIENT), after=10_000) == []


def test_one_that_was_stopped_for_another_reason_is_replaced() -> None:
    stopped = (b.stop_requested(1, reason="actor bar_0 needs the slot"), b.stopped(1))
    assert kinds(decide(given(*TWO_READY, *stopped))) == ["worker.requested"]


def test_one_that_fails_after_a_stop_is_replaced_once() -> None:
    history = [*TWO_READY, *REQUESTED_BY_CLIENT, b.lost(0)]
    assert kinds(decide(given(*history))) == ["worker.requested"]
    assert decide(given(*history, b.requested(2))) == []


def test_it_is_replaced_when_messages_need_it() -> None:
    waiting = [*TWO_READY, *REQUESTED_BY_CLIENT, b.received(0), b.assigned(0), b.received(1)]
    [request] = decide(given(*waiting))
    assert isinstance(request, ev.WorkerRequested)
    assert not request.warm
    more = [*waiting, b.requested(2, warm=False), b.ready(2), b.assigned(1), b.finished(1)]
    idle = [*more, b.finished(0)]
    assert decide(given(*idle), after=10_000) == [], "two are kept again"


def test_all_can_be_stopped() -> None:
    none_left = [
        *TWO_READY,
        *REQUESTED_BY_CLIENT,
        b.stop_requested(0, reason=ev.REQUESTED_BY_CLIENT),
        b.stopped(0),
    ]
    assert decide(given(*none_left)) == []
    assert kinds(decide(given(*none_left, b.received(0)))) == ["worker.requested"]


def test_a_new_definition_brings_the_minimum_back() -> None:
    [event] = decide(given(*TWO_READY, *REQUESTED_BY_CLIENT, b.updated(min_workers=2, revision=1)))
    assert ev.type_of(event) == "worker.requested"


def test_above_the_minimum_a_stop_changes_nothing_else() -> None:
    three = [*TWO_READY, b.received(0), b.requested(2), b.ready(2), b.assigned(0), b.finished(0)]
    stopped = [*three, b.stop_requested(2, reason=ev.REQUESTED_BY_CLIENT), b.stopped(2)]
    assert decide(given(*stopped), after=10_000) == [], "the other two stay"
    assert kinds(decide(given(*stopped, b.lost(0)))) == ["worker.requested"]
