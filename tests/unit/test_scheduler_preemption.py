"""Preemption when there are fewer slots than demands, in simulated time.

Hosts answer at once, a worker is ready after ``START`` seconds, an execution takes ``RUN``.
"""

import time
from collections import defaultdict
from datetime import timedelta

import pytest

import builders as b
from abaco_proto import events as ev
from abaco_proto.heartbeat import Heartbeat
from abaco_proto.names import execution_ordinal, worker_number
from abaco_scheduler.domain.cluster import Cluster, apply_event
from abaco_scheduler.domain.decision import Now
from abaco_scheduler.domain.plan import plan
from abaco_scheduler.domain.policy import Policy

STEP = 0.05
START = 0.3
RUN = 0.5
POLICY = Policy(time_slice_seconds=2)


class SimulatedHost:
    """A scheduler, one host, and time."""

    def __init__(self, capacity: int, *, run: float = RUN) -> None:
        self.capacity = capacity
        self.run_seconds = run
        self.cluster = Cluster()
        self.log: list[ev.Event] = []
        self.now = 0.0
        self.due: list[tuple[float, ev.Event]] = []
        self.assigned_at: dict[str, float] = {}
        self.requests: dict[str, int] = defaultdict(int)
        self.ended: dict[str, int] = defaultdict(int)
        self.append(b.joined(capacity=capacity))

    def append(self, *events: ev.Event) -> None:
        for event in events:
            self.log.append(event)
            at = b.T0 + timedelta(seconds=self.now)
            apply_event(self.cluster, b.record(event, len(self.log), at=at))
            self._answer(event)

    def _answer(self, event: ev.Event) -> None:
        match event:
            case ev.WorkerRequested():
                self.requests[event.actor_id] += 1
                number = worker_number(event.worker_id, event.actor_id) or 0
                ready = b.ready(number, event.actor_id)
                self.due.append((self.now + START, ready))
            case ev.WorkerStopRequested():
                state = self.cluster.actors["default", event.actor_id]
                assert state.workers[event.worker_id].execution_id is None, "it was given work"
                number = worker_number(event.worker_id, event.actor_id) or 0
                self.due.append((self.now, b.stopped(number, event.actor_id)))
            case ev.ExecutionAssigned():
                self.assigned_at[event.execution_id] = self.now
                ordinal = execution_ordinal(event.execution_id, event.actor_id) or 0
                end = b.finished(ordinal, event.actor_id, worker_id=event.worker_id)
                self.due.append((self.now + self.run_seconds, end))
            case ev.ExecutionFinished():
                self.ended[event.actor_id] += 1

    def actor(self, actor_id: str, messages: int = 0, **definition: int) -> None:
        self.append(b.registered(actor_id, **{"min_workers": 0, "max_workers": 100, **definition}))
        self.append(*(b.received(n, actor_id) for n in range(messages)))

    def run_for(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += STEP
            due = [event for at, event in self.due if at <= self.now]
            self.due = [(at, event) for at, event in self.due if at > self.now]
            for event in [None, *due]:  # a plan after every event, as when they come one by one
                self.append(*([event] if event is not None else []))
                self.schedule()
            assert self.cluster.worker_counts["h1"] <= self.capacity

    def schedule(self) -> None:
        at = 1000 + self.now
        self.cluster.record_heartbeat(
            Heartbeat(host_id="h1", capacity=self.capacity), "default", at
        )
        time = b.T0 + timedelta(seconds=self.now)
        for decision in plan(self.cluster, POLICY, Now(time=time, monotonic=at, connected_since=0)):
            expected = decision.expected
            asks = isinstance(decision.event, ev.WorkerRequested)
            if asks and expected and expected.sequence != self.cluster.worker_request_sequence:
                continue  # another request of the same plan was faster
            self.append(decision.event)

    def workers(self, actor_id: str) -> int:
        return len(self.cluster.actors["default", actor_id].workers)


@pytest.mark.parametrize("capacity", [2, 4, 16])
def test_one_message_does_not_wait_for_five_hundred(capacity: int) -> None:
    host = SimulatedHost(capacity)
    host.actor("big_0", 500)
    host.run_for(START + 3)
    assert host.workers("big_0") == capacity
    host.actor("small_0", 1)
    arrived = host.now
    host.run_for(RUN + START + 4 * STEP)
    assert host.assigned_at["small_0_exc_0"] - arrived <= RUN + START + 3 * STEP


def test_on_a_single_slot_one_message_waits_no_longer_than_a_time_slice() -> None:
    host = SimulatedHost(1)
    host.actor("big_0", 500)
    host.run_for(START + 0.1)  # its time slice has just begun
    host.actor("small_0", 1)
    arrived = host.now
    host.run_for(5)
    waited = host.assigned_at["small_0_exc_0"] - arrived
    assert waited <= POLICY.time_slice_seconds + RUN + START + 3 * STEP


def test_after_its_time_slice_a_worker_stops_when_its_execution_has_ended() -> None:
    host = SimulatedHost(1)
    host.actor("big_0", 500)
    host.run_for(START + POLICY.time_slice_seconds + 0.1)
    host.actor("small_0", 1)
    arrived = host.now
    host.run_for(2)
    assert host.assigned_at["small_0_exc_0"] - arrived <= RUN + START + 3 * STEP


def test_two_long_backlogs_on_one_slot_alternate_once_per_time_slice() -> None:
    host = SimulatedHost(1, run=0.1)
    host.actor("big_0", 2000)
    host.actor("huge_0", 2000)
    host.run_for(60)
    hand_overs = sum(host.requests.values())
    assert (
        60 / (POLICY.time_slice_seconds + 1) / 2 < hand_overs <= 60 / POLICY.time_slice_seconds + 1
    )
    assert host.ended["big_0"] == pytest.approx(host.ended["huge_0"], rel=0.15)
    busy = (host.ended["big_0"] + host.ended["huge_0"]) * (0.1 + STEP)
    assert busy > 0.7 * 60


def test_three_long_backlogs_on_one_slot_get_equal_shares() -> None:
    host = SimulatedHost(1)
    for name in ("a_0", "b_0", "c_0"):
        host.actor(name, 500)
    host.run_for(60)
    assert min(host.ended.values()) > 0.7 * max(host.ended.values())
    assert len(host.ended) == 3


def test_slots_move_towards_balance_and_stay_there() -> None:
    host = SimulatedHost(8)
    host.actor("big_0", 5000)
    host.run_for(5)
    host.actor("huge_0", 5000)
    host.run_for(10)
    assert (host.workers("big_0"), host.workers("huge_0")) == (4, 4)
    before = dict(host.requests)
    host.run_for(30)
    assert dict(host.requests) == before
    assert before == {"big_0": 8, "huge_0": 4}


def test_an_odd_slot_stays_with_its_actor() -> None:
    host = SimulatedHost(3)
    host.actor("big_0", 5000)
    host.actor("huge_0", 5000)
    host.run_for(10)
    before = dict(host.requests)
    host.run_for(30)
    assert dict(host.requests) == before
    assert {host.workers("big_0"), host.workers("huge_0")} == {1, 2}


def test_with_more_actors_than_slots_all_make_progress() -> None:
    host = SimulatedHost(2)
    for n in range(7):
        host.actor(f"a{n}_0", 500)
    host.run_for(120)
    assert len(host.ended) == 7
    assert min(host.ended.values()) > 0.6 * max(host.ended.values())


def test_max_workers_is_respected() -> None:
    host = SimulatedHost(8)
    host.actor("big_0", 500)
    host.run_for(3)
    host.actor("small_0", 500, max_workers=2)
    host.run_for(10)
    assert (host.workers("big_0"), host.workers("small_0")) == (6, 2)


def test_an_actor_with_messages_is_not_preempted_for_min_workers() -> None:
    host = SimulatedHost(4)
    host.actor("big_0", 500)
    host.run_for(5)
    host.actor("small_0", 0, min_workers=2)
    host.run_for(5)
    assert (host.workers("big_0"), host.workers("small_0")) == (4, 0)


def test_idle_workers_are_preempted_before_busy_actors() -> None:
    host = SimulatedHost(4)
    host.actor("idle_0", 0, min_workers=2)
    host.run_for(1)
    host.actor("big_0", 500)
    host.run_for(3)
    host.actor("small_0", 1)
    host.run_for(3)
    assert [host.workers(name) for name in ("big_0", "small_0", "idle_0")] == [3, 1, 0]


def test_an_actor_scales_to_zero_and_back() -> None:
    host = SimulatedHost(4)
    host.actor("small_0", 1)
    host.run_for(3)
    assert host.workers("small_0") == 1
    host.now += Policy().worker_ttl_seconds
    host.run_for(1)
    assert host.workers("small_0") == 0
    host.append(b.received(1, "small_0"))
    host.run_for(3)
    assert "small_0_exc_1" in host.assigned_at


def crowd(actors: int) -> Cluster:
    """A full host, and actors that all have one worker and demand a second one."""
    cluster = Cluster()
    events: list[ev.Event] = [b.joined(capacity=actors)]
    for number in range(actors):
        actor_id = f"foo_{number}"
        definition = b.definition(min_workers=2)
        events.append(ev.ActorRegistered(actor_id=actor_id, definition=definition))
        events += [b.requested(0, actor_id), b.ready(0, actor_id)]
    for sequence, event in enumerate(events, 1):
        apply_event(cluster, b.record(event, sequence, at=b.T0))
    return cluster


def planning(cluster: Cluster) -> float:
    now = Now(time=b.T0, monotonic=0, connected_since=0)

    def once() -> float:
        begun = time.process_time()  # what others do on this machine is not in it
        assert plan(cluster, POLICY, now) == []
        return time.process_time() - begun

    return min(once() for _ in range(3))


def test_a_plan_takes_time_linear_in_the_number_of_demands() -> None:
    assert planning(crowd(2000)) < 24 * planning(crowd(250))  # 8 times as many; 64 squared
