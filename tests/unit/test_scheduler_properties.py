"""What holds of every plan, whatever happens, in a small world played at random.

Two schedulers run: one is up to date, the other looks at a log that is some events old. The
world appends what hosts and people do; what a scheduler decides gets in only if its condition
holds, as in the real log. Every event that gets in is checked against the folds of
``abaco_proto``.
"""

from collections import defaultdict
from datetime import timedelta
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

import builders as b
from abaco_proto import events as ev
from abaco_proto import execution, ids, worker
from abaco_proto.envelope import Recorded
from abaco_proto.execution import Execution, ExecutionStatus
from abaco_proto.log import Heartbeat
from abaco_proto.worker import Worker, WorkerStatus
from abaco_scheduler.cluster import Cluster, observe
from abaco_scheduler.decision import Decision, Now
from abaco_scheduler.plan import plan
from abaco_scheduler.policy import Policy
from fakes import matches

POLICY = Policy(worker_retry_seconds=1, worker_ttl_seconds=5, max_attempts=4)
HOSTS = {"h1": 2, "h2": 1}


class World:
    def __init__(self, random: Random) -> None:
        self.random = random
        self.log: list[Recorded] = []
        self.clusters = [Cluster(), Cluster()]
        self.seen = [0, 0]
        self.clock = 100.0
        self.heard = dict.fromkeys(HOSTS, 100.0)
        self.silent: set[str] = set()
        self.actors: dict[str, ev.Definition] = {}
        self.revisions: dict[str, int] = {}
        self.messages: dict[str, int] = defaultdict(int)
        self.executions: dict[str, Execution] = {}
        self.workers: dict[str, Worker] = {}
        self.first_assigned: dict[str, int] = defaultdict(lambda: -1)

    # -- the log, and what must hold of it --

    def append(self, event: ev.Event) -> None:
        sequence = len(self.log) + 1
        at = b.T0 + timedelta(seconds=self.clock - 100)
        recorded = b.record(event, sequence, at=at)
        if isinstance(event, ev.ExecutionAssigned):
            self.check_assignment(event)
        self.log.append(recorded)
        if isinstance(event, ev.MessageReceived):
            self.executions[event.execution_id] = execution.INITIAL
        if isinstance(event, ev.WorkerRequested):
            assert event.worker_id not in self.workers
            self.workers[event.worker_id] = worker.INITIAL
        for execution_id, state in self.executions.items():
            if not isinstance(event, ev.MessageReceived) or event.execution_id == execution_id:
                self.executions[execution_id] = execution.evolve(state, recorded)
        for worker_id, found in self.workers.items():
            if not isinstance(event, ev.WorkerRequested) or event.worker_id == worker_id:
                self.workers[worker_id] = worker.evolve(found, recorded)
        self.check_seats()

    def check_assignment(self, event: ev.ExecutionAssigned) -> None:
        state = self.executions[event.execution_id]
        if state.status is ExecutionStatus.PURGED:
            return  # the one that lags had not seen the end yet: the fold ignores its assignment
        assert not state.ended
        assert event.attempt == state.attempt + 1
        if state.worker_id is not None:
            assert not self.workers[state.worker_id].live, "two live workers with one message"
        else:
            assert event.ordinal > self.first_assigned[event.actor_id], "out of order"
            self.first_assigned[event.actor_id] = event.ordinal
        assert self.log[event.message_sequence - 1].event == b.received(
            event.ordinal, event.actor_id
        )

    def check_seats(self) -> None:
        live = [w for w in self.workers.values() if w.live]
        for host_id, capacity in HOSTS.items():
            assert sum(w.host_id == host_id for w in live) <= capacity, "a host is overfull"
        for actor_id, definition in self.actors.items():
            if not definition.stateless:
                assert sum(w.actor_id == actor_id for w in live) <= 1, "a stateful actor has two"

    # -- the schedulers --

    def schedule(self, which: int, lag: int = 0) -> bool:
        cluster = self.clusters[which]
        for recorded in self.log[self.seen[which] : max(self.seen[which], len(self.log) - lag)]:
            observe(cluster, recorded)
            self.seen[which] += 1
        for host_id, capacity in HOSTS.items():
            if self.heard[host_id] > 100:
                cluster.heard(
                    Heartbeat(host_id=host_id, capacity=capacity), "default", self.heard[host_id]
                )
        now = Now(
            time=b.T0 + timedelta(seconds=self.clock - 100),
            monotonic=self.clock,
            listening_since=100.0,
        )
        tips: dict[str, int] = {}
        admitted = [self.admit(decision, tips) for decision in plan(cluster, POLICY, now)]
        return any(admitted)

    def admit(self, decision: Decision, tips: dict[str, int]) -> bool:
        wish, expected = b.record(decision.event), decision.expected
        if expected is not None:
            tip = max(
                (r.sequence for r in self.log if matches(expected.filter, r.subject)), default=0
            )
            if tip != tips.get(expected.filter, expected.sequence):
                return False
            tips[expected.filter] = len(self.log) + 1
        elif any(r.id == wish.id for r in self.log):
            return False
        self.append(decision.event)
        return True

    # -- what hosts and people do --

    def register(self) -> None:
        actor_id = ids.actor_id("foo", len(self.revisions))
        stateless = self.random.random() < 0.6
        definition = b.definition(
            stateless=stateless,
            min_workers=self.random.choice([0, 1, 2]) if stateless else 1,
            max_workers=3 if stateless else 1,
        )
        self.actors[actor_id] = definition
        self.revisions[actor_id] = 1
        self.append(ev.ActorRegistered(actor_id=actor_id, definition=definition))

    def message(self) -> None:
        if self.actors:
            actor_id = self.random.choice(sorted(self.actors))
            self.append(b.received(self.messages[actor_id], actor_id))
            self.messages[actor_id] += 1

    def update(self) -> None:
        if self.actors:
            actor_id = self.random.choice(sorted(self.actors))
            self.revisions[actor_id] += 1
            self.append(
                ev.ActorUpdated(
                    actor_id=actor_id,
                    definition=self.actors[actor_id],
                    revision=self.revisions[actor_id],
                )
            )

    def delete(self) -> None:
        if self.actors and self.random.random() < 0.3:
            actor_id = self.random.choice(sorted(self.actors))
            self.append(ev.ActorDeleted(actor_id=actor_id))
            del self.actors[actor_id]

    def beat(self) -> None:
        self.clock += self.random.choice([0.1, 1, 3])
        for host_id in HOSTS:
            if host_id not in self.silent:
                self.heard[host_id] = self.clock

    def plug(self) -> None:
        self.silent ^= {self.random.choice(sorted(HOSTS))}

    def work(self, *, failing: float = 0.15) -> bool:
        """One worker on a host that answers does the next thing it has to do."""
        for found in self.random.sample(sorted(self.workers.values(), key=str), len(self.workers)):
            if not found.live or found.host_id in self.silent:
                continue
            number = ids.worker_number(found.worker_id, found.actor_id) or 0
            where = {"host_id": found.host_id, "actor_id": found.actor_id}
            running = self.executions.get(found.execution_id or "")
            if running is not None and running.worker_id == found.worker_id:
                return self.run_on(running, found)
            if found.status is WorkerStatus.STOPPING:
                self.append(b.stopped(number, found.actor_id, found.host_id))
                return True
            if found.status is WorkerStatus.REQUESTED:
                fails = self.random.random() < failing
                make = b.failed if fails else b.ready
                self.append(make(number, revision=found.revision, **where))
                return True
        return False

    def run_on(self, running: Execution, found: Worker) -> bool:
        make = b.started if running.status is ExecutionStatus.ASSIGNED else b.finished
        self.append(
            make(
                running.ordinal,
                running.actor_id,
                attempt=running.attempt,
                worker_id=found.worker_id,
                host_id=found.host_id,
            )
        )
        return True

    def calm_down(self) -> None:
        """Plug everything in and let the world run until nothing happens any more."""
        self.silent.clear()
        for _ in range(5000):
            self.beat()
            moved = self.work(failing=0)
            moved |= self.schedule(0)
            if not moved and all(e.ended for e in self.executions.values()):
                return
        raise AssertionError("it never comes to rest")


ACTIONS = [
    "register",
    "message",
    "message",
    "message",
    "update",
    "delete",
    "beat",
    "plug",
    "work",
    "work",
]


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.integers(1, 120))
def test_no_message_is_lost_doubled_or_overtaken(seed: int, length: int) -> None:
    world = World(Random(seed))
    for _ in range(length):
        getattr(world, world.random.choice(ACTIONS))()
        if world.random.random() < 0.7:
            world.schedule(0)
        if world.random.random() < 0.3:
            world.schedule(1, lag=world.random.randrange(4))
    world.calm_down()
    ended = {e.status for e in world.executions.values()}
    assert ended <= {ExecutionStatus.COMPLETE, ExecutionStatus.ERROR, ExecutionStatus.PURGED}
    assert all(w.actor_id in world.actors for w in world.workers.values() if w.live)
