"""Who gets the seats when there are fewer than needs, played out in simulated time.

Hosts answer at once, a worker is ready after ``START`` seconds, an execution takes ``RUN``.
"""

import time
from collections import defaultdict
from datetime import timedelta

import pytest

import builders as b
from abaco_proto import events as ev
from abaco_proto.ids import execution_ordinal, worker_number
from abaco_proto.log import Heartbeat
from abaco_scheduler.cluster import Cluster, observe
from abaco_scheduler.decision import Now
from abaco_scheduler.plan import plan
from abaco_scheduler.policy import Policy

STEP = 0.05
START = 0.3
RUN = 0.5
POLICY = Policy(turn_seconds=2)


class Town:
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
            observe(self.cluster, b.record(event, len(self.log), at=at))
            self._answer(event)

    def _answer(self, event: ev.Event) -> None:
        match event:
            case ev.WorkerRequested():
                self.requests[event.actor_id] += 1
                number = worker_number(event.worker_id, event.actor_id) or 0
                ready = b.ready(number, event.actor_id)
                self.due.append((self.now + START, ready))
            case ev.WorkerStopRequested():
                desk = self.cluster.desks["default", event.actor_id]
                assert desk.workers[event.worker_id].execution_id is None, "it was given work"
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

    def pass_by(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += STEP
            due = [event for at, event in self.due if at <= self.now]
            self.due = [(at, event) for at, event in self.due if at > self.now]
            for event in [None, *due]:  # a plan after every event, as when they come one by one
                self.append(*([event] if event is not None else []))
                self.schedule()
            assert self.cluster.load["h1"] <= self.capacity

    def schedule(self) -> None:
        at = 1000 + self.now
        self.cluster.heard(Heartbeat(host_id="h1", capacity=self.capacity), "default", at)
        time = b.T0 + timedelta(seconds=self.now)
        for decision in plan(self.cluster, POLICY, Now(time=time, monotonic=at, listening_since=0)):
            expected = decision.expected
            asks = isinstance(decision.event, ev.WorkerRequested)
            if asks and expected and expected.sequence != self.cluster.requested_sequence:
                continue  # another request of the same plan was faster
            self.append(decision.event)

    def seats(self, actor_id: str) -> int:
        return len(self.cluster.desks["default", actor_id].workers)


@pytest.mark.parametrize("capacity", [2, 4, 16])
def test_one_message_does_not_wait_for_five_hundred(capacity: int) -> None:
    town = Town(capacity)
    town.actor("big_0", 500)
    town.pass_by(START + 3)
    assert town.seats("big_0") == capacity
    town.actor("small_0", 1)
    arrived = town.now
    town.pass_by(RUN + START + 4 * STEP)
    assert town.assigned_at["small_0_exc_0"] - arrived <= RUN + START + 3 * STEP


def test_on_a_single_seat_one_message_waits_no_longer_than_a_turn() -> None:
    town = Town(1)
    town.actor("big_0", 500)
    town.pass_by(START + 0.1)  # its turn has just begun
    town.actor("small_0", 1)
    arrived = town.now
    town.pass_by(5)
    waited = town.assigned_at["small_0_exc_0"] - arrived
    assert waited <= POLICY.turn_seconds + RUN + START + 3 * STEP


def test_a_turn_that_is_over_goes_at_the_end_of_the_execution() -> None:
    town = Town(1)
    town.actor("big_0", 500)
    town.pass_by(START + POLICY.turn_seconds + 0.1)
    town.actor("small_0", 1)
    arrived = town.now
    town.pass_by(2)
    assert town.assigned_at["small_0_exc_0"] - arrived <= RUN + START + 3 * STEP


def test_two_long_backlogs_on_one_seat_take_turns_and_not_more() -> None:
    town = Town(1, run=0.1)
    town.actor("big_0", 2000)
    town.actor("huge_0", 2000)
    town.pass_by(60)
    hand_overs = sum(town.requests.values())
    assert 60 / (POLICY.turn_seconds + 1) / 2 < hand_overs <= 60 / POLICY.turn_seconds + 1
    assert town.ended["big_0"] == pytest.approx(town.ended["huge_0"], rel=0.15)
    busy = (town.ended["big_0"] + town.ended["huge_0"]) * (0.1 + STEP)
    assert busy > 0.7 * 60


def test_three_long_backlogs_on_one_seat_go_round() -> None:
    town = Town(1)
    for name in ("a_0", "b_0", "c_0"):
        town.actor(name, 500)
    town.pass_by(60)
    assert min(town.ended.values()) > 0.7 * max(town.ended.values())
    assert len(town.ended) == 3


def test_seats_move_towards_balance_and_rest_there() -> None:
    town = Town(8)
    town.actor("big_0", 5000)
    town.pass_by(5)
    town.actor("huge_0", 5000)
    town.pass_by(10)
    assert (town.seats("big_0"), town.seats("huge_0")) == (4, 4)
    before = dict(town.requests)
    town.pass_by(30)
    assert dict(town.requests) == before
    assert before == {"big_0": 8, "huge_0": 4}


def test_an_odd_seat_stays_where_it_is() -> None:
    town = Town(3)
    town.actor("big_0", 5000)
    town.actor("huge_0", 5000)
    town.pass_by(10)
    before = dict(town.requests)
    town.pass_by(30)
    assert dict(town.requests) == before
    assert {town.seats("big_0"), town.seats("huge_0")} == {1, 2}


def test_more_actors_than_seats_all_get_somewhere() -> None:
    town = Town(2)
    for n in range(7):
        town.actor(f"a{n}_0", 500)
    town.pass_by(120)
    assert len(town.ended) == 7
    assert min(town.ended.values()) > 0.6 * max(town.ended.values())


def test_a_maximum_of_its_own_is_kept() -> None:
    town = Town(8)
    town.actor("big_0", 500)
    town.pass_by(3)
    town.actor("small_0", 500, max_workers=2)
    town.pass_by(10)
    assert (town.seats("big_0"), town.seats("small_0")) == (6, 2)


def test_nobody_gives_up_a_seat_for_a_minimum() -> None:
    town = Town(4)
    town.actor("big_0", 500)
    town.pass_by(5)
    town.actor("small_0", 0, min_workers=2)
    town.pass_by(5)
    assert (town.seats("big_0"), town.seats("small_0")) == (4, 0)


def test_what_is_idle_goes_before_what_has_work() -> None:
    town = Town(4)
    town.actor("idle_0", 0, min_workers=2)
    town.pass_by(1)
    town.actor("big_0", 500)
    town.pass_by(3)
    town.actor("small_0", 1)
    town.pass_by(3)
    assert [town.seats(name) for name in ("big_0", "small_0", "idle_0")] == [3, 1, 0]


def test_an_actor_scales_to_zero_and_back() -> None:
    town = Town(4)
    town.actor("small_0", 1)
    town.pass_by(3)
    assert town.seats("small_0") == 1
    town.now += Policy().worker_ttl_seconds
    town.pass_by(1)
    assert town.seats("small_0") == 0
    town.append(b.received(1, "small_0"))
    town.pass_by(3)
    assert "small_0_exc_1" in town.assigned_at


def crowd(actors: int) -> Cluster:
    """A full host, and actors that all have one worker and want a second one."""
    cluster = Cluster()
    events: list[ev.Event] = [b.joined(capacity=actors)]
    for number in range(actors):
        actor_id = f"foo_{number}"
        definition = b.definition(min_workers=2)
        events.append(ev.ActorRegistered(actor_id=actor_id, definition=definition))
        events += [b.requested(0, actor_id), b.ready(0, actor_id)]
    for sequence, event in enumerate(events, 1):
        observe(cluster, b.record(event, sequence, at=b.T0))
    return cluster


def planning(cluster: Cluster) -> float:
    now = Now(time=b.T0, monotonic=0, listening_since=0)

    def once() -> float:
        begun = time.process_time()  # what others do on this machine is not in it
        assert plan(cluster, POLICY, now) == []
        return time.process_time() - begun

    return min(once() for _ in range(3))


def test_a_plan_takes_as_long_as_there_are_needs_not_their_square() -> None:
    assert planning(crowd(2000)) < 24 * planning(crowd(250))  # 8 times as many; 64 squared
