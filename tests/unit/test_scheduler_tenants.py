"""Slots are shared between tenants first, then between the actors of each."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

import builders as b
import readings
from abaco_proto import events as ev
from abaco_proto.heartbeat import Heartbeat
from abaco_proto.names import execution_ordinal, worker_number
from abaco_scheduler.app.scheduler_metrics import SchedulerMetrics
from abaco_scheduler.domain.cluster import Cluster, apply_event
from abaco_scheduler.domain.cluster_statistics import cluster_statistics
from abaco_scheduler.domain.decision import Decision, Now
from abaco_scheduler.domain.plan import plan
from abaco_scheduler.domain.policy import DemandPriority, Policy
from abaco_scheduler.domain.worker_demand import WorkerDemand, in_fair_order

MESSAGES = 40
STEP_SECONDS = 1.0
POLICY = Policy(time_slice_seconds=STEP_SECONDS)


class Simulation:
    """One host, on which each execution takes one step; workers start and stop at once."""

    def __init__(self, capacity: int, policy: Policy = POLICY) -> None:
        self.cluster = Cluster()
        self.capacity = capacity
        self.policy = policy
        self.decisions: list[Decision] = []
        self.ended: Counter[str] = Counter()
        self._running: list[tuple[str, ev.ExecutionAssigned]] = []
        self._seconds = 0.0
        self._heartbeat()
        self.append("default", b.joined(capacity=capacity))

    def append(self, tenant: str, event: ev.Event) -> None:
        at = b.T0 + timedelta(seconds=self._seconds)
        sequence = self.cluster.sequence + 1
        apply_event(self.cluster, b.record(event, sequence, at=at, tenant=tenant))
        match event:
            case ev.WorkerRequested():
                number = worker_number(event.worker_id, event.actor_id) or 0
                self.append(tenant, b.ready(number, event.actor_id))
            case ev.WorkerStopRequested():
                number = worker_number(event.worker_id, event.actor_id) or 0
                self.append(tenant, b.stopped(number, event.actor_id))
            case ev.ExecutionAssigned():
                self._running.append((tenant, event))

    def actor(self, tenant: str, actor_id: str, messages: int = MESSAGES, **more: int) -> None:
        definition = {"min_workers": 0, "max_workers": 100, **more}
        self.append(tenant, b.registered(actor_id, **definition))
        for n in range(messages):
            self.append(tenant, b.received(n, actor_id))

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self._seconds += STEP_SECONDS
            self._plan()
            running, self._running = self._running, []
            for tenant, event in running:
                ordinal = execution_ordinal(event.execution_id, event.actor_id) or 0
                end = b.finished(ordinal, event.actor_id, worker_id=event.worker_id)
                self.append(tenant, end)
                self.ended[tenant] += 1
                self._plan()

    def _heartbeat(self) -> None:
        beat = Heartbeat(host_id="h1", capacity=self.capacity)
        self.cluster.record_heartbeat(beat, "default", 1000 + self._seconds)

    def _plan(self) -> None:
        """Plan until nothing is left to decide."""
        self._heartbeat()
        time = b.T0 + timedelta(seconds=self._seconds)
        now = Now(time=time, monotonic=1000 + self._seconds, connected_since=0)
        for _ in range(50):
            decisions = plan(self.cluster, self.policy, now)
            for decision in decisions:
                expected = decision.expected
                is_request = isinstance(decision.event, ev.WorkerRequested)
                head = self.cluster.worker_request_sequence
                if is_request and expected is not None and expected.sequence != head:
                    continue  # another request of the same plan was faster
                self.decisions.append(decision)
                self.append(decision.tenant, decision.event)
            assert self.cluster.worker_counts["h1"] <= self.capacity
            if not decisions:
                return
        raise AssertionError("the plans do not settle")

    def workers(self, tenant: str) -> list[int]:
        """How many workers each actor of a tenant has."""
        states = self.cluster.actors.values()
        return [len(state.workers) for state in states if state.tenant == tenant]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_tenants_get_equal_shares_and_then_their_actors(
    capacity: int, tenants: Sequence[int], data: st.DataObject
) -> None:
    """Whatever the order in which the actors come."""
    actors = [(f"t{t}", f"a{n}_0") for t, count in enumerate(tenants) for n in range(count)]
    simulation = Simulation(capacity)
    for tenant, actor_id in data.draw(st.permutations(actors)):
        simulation.actor(tenant, actor_id)
        simulation.run(1)
    simulation.run(3)
    shares = {tenant: simulation.workers(tenant) for tenant, _ in actors}
    totals = [sum(share) for share in shares.values()]
    assert sum(totals) == capacity
    assert max(totals) - min(totals) <= 1, shares
    for share in shares.values():
        assert max(share) - min(share) <= 1, shares


def test_a_tenant_with_many_actors_gets_no_more_than_one_with_a_single_one() -> None:
    simulation = Simulation(1)
    for n in range(12):
        simulation.actor("many", f"a{n}_0", 10)
    simulation.actor("one", "a0_0", 60)
    simulation.run(40)
    assert abs(simulation.ended["many"] - simulation.ended["one"]) <= 4, simulation.ended
    assert simulation.ended.total() >= 30


def test_workers_that_wait_for_messages_do_not_keep_out_another_tenant() -> None:
    simulation = Simulation(4)
    simulation.actor("greedy", "a0_0", 0, min_workers=50)
    simulation.run(2)
    assert simulation.workers("greedy") == [4]
    simulation.actor("other", "a0_0", 5)
    simulation.run(1)
    assert simulation.workers("other") != [0]


def test_a_tenant_has_no_more_workers_than_it_may() -> None:
    policy = Policy(time_slice_seconds=STEP_SECONDS, max_tenant_workers=2)
    simulation = Simulation(6, policy)
    for tenant in ("red", "blue"):
        for n in range(2):
            simulation.actor(tenant, f"a{n}_0")
    simulation.run(5)
    assert [sum(simulation.workers(tenant)) for tenant in ("red", "blue")] == [2, 2]
    assert min(simulation.workers("red")) == 1


def test_a_reason_names_no_actor_of_another_tenant() -> None:
    simulation = Simulation(2)
    simulation.actor("red", "secret_0")
    simulation.run(2)
    simulation.actor("blue", "hidden_0")
    simulation.run(3)
    stops = [d for d in simulation.decisions if isinstance(d.event, ev.WorkerStopRequested)]
    assert stops
    for stop in stops:
        assert stop.tenant == "red"
        assert "hidden" not in str(stop.event)


def test_a_worker_that_stops_is_that_of_its_tenant() -> None:
    """Both tenants have a worker ``a_0_wkr_0``; one is preempted, the other gets its message."""
    simulation = Simulation(2)
    simulation.actor("blue", "a_0", 1, min_workers=1)
    simulation.actor("red", "a_0", 1, min_workers=1)
    simulation.run(3)
    assert simulation.ended == {"blue": 1, "red": 1}
    simulation.append("blue", b.received(1, "a_0"))
    simulation.append("red", b.received(1, "a_0"))
    simulation.run(2)
    assert simulation.ended == {"blue": 2, "red": 2}


def test_demands_for_min_workers_come_after_the_messages_of_all_tenants() -> None:
    def demand(tenant: str, priority: DemandPriority, workers: int = 0) -> WorkerDemand:
        return WorkerDemand(priority, workers, b.T0, "a_0", tenant)

    warm = demand("idle", DemandPriority.MIN_WORKERS)
    more = demand("busy", DemandPriority.MORE_MESSAGES, 5)
    first = demand("new", DemandPriority.MESSAGES_WITHOUT_WORKER)
    found = in_fair_order([warm, more, first], {"busy": 5}, {})
    assert [each.tenant for each in found] == ["new", "busy", "idle"]


def test_queues_of_two_tenants_are_two_series() -> None:
    simulation = Simulation(0)
    for tenant, count in (("red", 3), ("blue", 2)):
        simulation.actor(tenant, "foo_0", count)
    statistics = cluster_statistics(simulation.cluster)
    assert statistics.longest_queues == [("red", "foo_0", 3), ("blue", "foo_0", 2)]
    metrics = SchedulerMetrics()
    metrics.update(statistics, 1)
    found = readings.of(metrics.registry)
    for tenant, count in (("red", 3), ("blue", 2)):
        name = "abaco_actor_messages_waiting"
        assert readings.value(found, name, tenant=tenant, actor_id="foo_0") == count
