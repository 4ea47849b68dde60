"""What holds of every plan, whatever happens, in a small world played at random.

Two schedulers run: one is up to date, the other has read a log that is some events old. The
world appends what hosts and people do; what a scheduler decides gets in only if its condition
holds, as in the real log. Every event that gets in is checked against the folds of
``abaco_proto``, and so is the state that a scheduler keeps of each message.
"""

from collections import defaultdict
from datetime import timedelta
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import builders as b
from abaco_proto import events as ev
from abaco_proto import names, worker
from abaco_proto.envelope import Recorded
from abaco_proto.execution import Execution, ExecutionStatus
from abaco_proto.fold import Fold
from abaco_proto.heartbeat import Heartbeat
from abaco_proto.worker import Worker, WorkerStatus
from abaco_scheduler.domain.cluster import Cluster, apply_event
from abaco_scheduler.domain.decision import Decision, Now
from abaco_scheduler.domain.plan import plan
from abaco_scheduler.domain.policy import Policy
from fakes import matches

POLICY = Policy(
    host_timeout_seconds=4, worker_retry_seconds=1, worker_ttl_seconds=5, max_attempts=2
)
HOSTS = {"h1": 2, "h2": 1}
MOST_ACTORS = 4
WAITING = (ExecutionStatus.SUBMITTED, ExecutionStatus.ASSIGNED, ExecutionStatus.RUNNING)

View = tuple[str, int, bool]
"""The state of a message, its attempt, and whether a halt was requested."""


class World:
    def __init__(self, random: Random) -> None:
        self.random = random
        self.log: list[Recorded] = []
        self.fold = Fold()
        self.clusters = [Cluster(), Cluster()]
        self.seen = [0, 0]
        self.clock = 100.0
        self.heartbeats = dict.fromkeys(HOSTS, 100.0)
        self.silent: set[str] = set()
        self.revisions: dict[str, int] = {}
        self.messages: dict[str, int] = defaultdict(int)
        self.first_assigned: dict[str, int] = defaultdict(lambda: -1)

    @property
    def actors(self) -> list[str]:
        return sorted(key[1] for key, found in self.fold.actors.items() if found.exists)

    def execution(self, event: ev.ExecutionAssigned) -> Execution:
        return self.fold.executions["default", event.actor_id, event.ordinal]

    def executions(self, *statuses: ExecutionStatus) -> list[Execution]:
        return [e for e in self.fold.executions.values() if e.status in statuses]

    def worker(self, worker_id: str | None) -> Worker:
        return self.fold.workers.get(("default", worker_id or ""), worker.INITIAL)

    # -- the log, and what must hold of it --

    def append(self, event: ev.Event, *, lag: int = 0) -> None:
        at = b.T0 + timedelta(seconds=self.clock - 100)
        recorded = b.record(event, len(self.log) + 1, at=at)
        if isinstance(event, ev.ExecutionAssigned):
            self.check_assignment(event, lag)
        if isinstance(event, ev.WorkerRequested):
            assert self.worker(event.worker_id) is worker.INITIAL
        self.log.append(recorded)
        self.fold.apply(recorded)
        self.check_worker_counts()

    def check_assignment(self, event: ev.ExecutionAssigned, lag: int) -> None:
        state = self.execution(event)
        if lag and (state.ended or state.halt_requested):
            return  # the one that lags had not seen the end yet: the fold ignores its assignment
        assert not state.ended, "what is over is run again"
        assert not state.halt_requested, "what was halted goes to another worker"
        assert event.attempt == state.attempt + 1
        if state.worker_id is None:
            assert event.ordinal > self.first_assigned[event.actor_id], "out of order"
            self.first_assigned[event.actor_id] = event.ordinal
        elif state.status is not ExecutionStatus.SUBMITTED:
            assert not self.worker(state.worker_id).live, "two live workers with one message"
        assert self.log[event.message_sequence - 1].event == b.received(
            event.ordinal, event.actor_id
        )

    def check_worker_counts(self) -> None:
        live = [w for w in self.fold.workers.values() if w.live]
        for host_id, capacity in HOSTS.items():
            assert sum(w.host_id == host_id for w in live) <= capacity, "a host is overfull"
        for actor_id in self.actors:
            if not self.fold.actors["default", actor_id].definition.stateless:
                assert sum(w.actor_id == actor_id for w in live) <= 1, "a stateful actor has two"

    # -- the schedulers --

    def schedule(self, which: int, lag: int = 0, *, hurry: float = 0.1) -> bool:
        """One step of a scheduler; now and then a person is faster than its decisions."""
        cluster = self.clusters[which]
        for recorded in self.log[self.seen[which] : max(self.seen[which], len(self.log) - lag)]:
            apply_event(cluster, recorded)
            self.seen[which] += 1
        if self.seen[which] == len(self.log):
            assert self.views(cluster) == self.expected_views()
        for host_id, capacity in HOSTS.items():
            if self.heartbeats[host_id] > 100:
                cluster.record_heartbeat(
                    Heartbeat(host_id=host_id, capacity=capacity),
                    "default",
                    self.heartbeats[host_id],
                )
        now = Now(
            time=b.T0 + timedelta(seconds=self.clock - 100),
            monotonic=self.clock,
            connected_since=100.0,
        )
        decisions = plan(cluster, POLICY, now)
        if self.random.random() < hurry:
            self.random.choice([self.halt, self.purge, self.delete])()
        heads: dict[str, int] = {}
        lag = len(self.log) - self.seen[which]
        admitted = [self.admit(decision, heads, lag) for decision in decisions]
        return any(admitted)

    def admit(self, decision: Decision, heads: dict[str, int], lag: int) -> bool:
        draft, expected = b.record(decision.event), decision.expected
        if expected is not None:
            head = max(
                (r.sequence for r in self.log if matches(expected.filter, r.subject)), default=0
            )
            if head != heads.get(expected.filter, expected.sequence):
                return False
            heads[expected.filter] = len(self.log) + 1
        elif any(r.id == draft.id for r in self.log):
            return False
        self.append(decision.event, lag=lag)
        return True

    @staticmethod
    def views(cluster: Cluster) -> dict[tuple[str, int], View]:
        """The state that a scheduler keeps of each message that has not ended."""
        found: dict[tuple[str, int], View] = {}
        for (_, actor_id), state in cluster.actors.items():
            box = state.inbox
            for ordinal in range(box.first_ordinal, box.first_ordinal + len(box.waiting)):
                if box.is_waiting(ordinal):
                    found[actor_id, ordinal] = ("waiting", 0, False)
            for ordinal, execution in box.running.items():
                found[actor_id, ordinal] = ("running", execution.attempt, execution.halt_requested)
            for ordinal, execution in box.retries.items():
                kind = "resubmitted" if execution.resubmitted else "lost"
                found[actor_id, ordinal] = (kind, execution.attempt, execution.halt_requested)
            for ordinal, _, attempts in box.abandoned:
                found[actor_id, ordinal] = ("abandoned", attempts, False)
        return found

    def expected_views(self) -> dict[tuple[str, int], View]:
        """The same according to the folds of ``abaco_proto``."""
        found: dict[tuple[str, int], View] = {}
        for (_, actor_id, ordinal), state in self.fold.executions.items():
            kind = self.kind(state)
            if kind is not None:
                found[actor_id, ordinal] = (kind, state.attempt, state.halt_requested)
        return found

    def kind(self, state: Execution) -> str | None:
        match state.status:
            case ExecutionStatus.SUBMITTED:
                return "resubmitted" if state.attempt else "waiting"
            case ExecutionStatus.ASSIGNED | ExecutionStatus.RUNNING:
                return "running" if self.worker(state.worker_id).live else "lost"
            case ExecutionStatus.ERROR if state.actor_id in self.actors:
                return "abandoned"
        return None

    # -- what hosts and people do --

    def register(self) -> None:
        if len(self.actors) == MOST_ACTORS:
            return
        actor_id = names.actor_id("foo", len(self.revisions))
        stateless = self.random.random() < 0.6
        definition = b.definition(
            stateless=stateless,
            min_workers=self.random.choice([0, 1, 2]) if stateless else 1,
            max_workers=3 if stateless else 1,
        )
        self.revisions[actor_id] = 1
        self.append(ev.ActorRegistered(actor_id=actor_id, definition=definition))

    def message(self) -> None:
        # One that was deleted a moment ago may get one more message.
        known = self.actors if self.random.random() < 0.9 else sorted(self.revisions)
        if known:
            actor_id = self.random.choice(known)
            self.append(b.received(self.messages[actor_id], actor_id))
            self.messages[actor_id] += 1

    def update(self) -> None:
        if self.actors:
            actor_id = self.random.choice(self.actors)
            self.revisions[actor_id] += 1
            self.append(
                ev.ActorUpdated(
                    actor_id=actor_id,
                    definition=self.fold.actors["default", actor_id].definition,
                    revision=self.revisions[actor_id],
                )
            )

    def delete(self) -> None:
        if self.actors and self.random.random() < 0.3:
            self.append(ev.ActorDeleted(actor_id=self.random.choice(self.actors)))

    def halt(self) -> None:
        """Whatever it is: what ended already, too."""
        if self.fold.executions and self.random.random() < 0.5:
            found = self.random.choice(list(self.fold.executions.values()))
            self.append(b.halt_requested(found.ordinal, found.actor_id))

    def purge(self) -> None:
        if self.actors and self.random.random() < 0.3:
            actor_id = self.random.choice(self.actors)
            up_to = self.random.randint(0, self.messages[actor_id])
            self.append(ev.InboxPurged(actor_id=actor_id, up_to_ordinal=up_to))

    def retry(self) -> None:
        abandoned = self.executions(ExecutionStatus.ERROR)
        if abandoned:
            found = self.random.choice(abandoned)
            self.append(b.retry_requested(found.ordinal, found.actor_id, attempts=found.attempt))

    def beat(self) -> None:
        self.clock += self.random.choice([0.1, 1, 3])
        for host_id in HOSTS:
            if host_id not in self.silent:
                self.heartbeats[host_id] = self.clock

    def plug(self) -> None:
        self.silent ^= {self.random.choice(sorted(HOSTS))}

    def late_report(self) -> None:
        """A report on a run of a worker that is gone, or on one that was said to have failed."""
        old = [
            found
            for found in self.executions(*WAITING)
            if found.attempt and not self.worker(found.worker_id).live
        ]
        if old:
            self.report(self.random.choice(old), failing=0.5)

    def work(self, *, failing: float = 0.25) -> bool:
        """One worker on a host that answers does the next thing it has to do."""
        workers = sorted(self.fold.workers.values(), key=str)
        for found in self.random.sample(workers, len(workers)):
            if not found.live or found.host_id in self.silent:
                continue
            number = names.worker_number(found.worker_id, found.actor_id) or 0
            where = {"host_id": found.host_id, "actor_id": found.actor_id}
            running = self.running(found)
            if running is not None and self.endless(running):
                continue
            if running is not None:
                self.report(running, failing=failing)
                return True
            if found.status is WorkerStatus.STOPPING:
                self.append(b.stopped(number, found.actor_id, found.host_id))
                return True
            if found.status is WorkerStatus.REQUESTED:
                fails = self.random.random() < failing
                make = b.failed if fails else b.ready
                self.append(make(number, revision=found.revision, **where))
                return True
        return False

    def running(self, found: Worker) -> Execution | None:
        """What a worker has to report on; what was over when it came is no work."""
        ordinal = names.execution_ordinal(found.execution_id or "", found.actor_id)
        state = self.fold.executions.get(("default", found.actor_id, ordinal or 0))
        if ordinal is None or state is None or state.ended:
            return None
        return state if state.worker_id == found.worker_id else None

    def endless(self, running: Execution) -> bool:
        """The programs of deleted actors run until a halt ends them."""
        runs = running.status is ExecutionStatus.RUNNING and not running.halt_requested
        return runs and running.actor_id not in self.actors

    def report(self, running: Execution, *, failing: float) -> None:
        attempt: dict[str, Any] = {
            "attempt": running.attempt,
            "worker_id": running.worker_id,
            "host_id": running.host_id,
        }
        if self.random.random() < failing:
            make: Any = b.execution_failed
        elif running.halt_requested:
            make = b.finished
            attempt["final_state"] = b.final_state(ended_by=ev.EndedBy.HALT)
        else:
            make = b.started if running.status is ExecutionStatus.ASSIGNED else b.finished
        self.append(make(running.ordinal, running.actor_id, **attempt))

    def calm_down(self) -> None:
        """Plug everything in and let the world run until nothing happens any more."""
        self.silent.clear()
        for _ in range(5000):
            self.beat()
            moved = self.work(failing=0)
            moved |= self.schedule(0, hurry=0)
            if not moved and all(e.ended for e in self.fold.executions.values()):
                return
        raise AssertionError("it never comes to rest")


ACTIONS = [
    *["register", "update", "delete", "plug", "halt", "purge", "retry", "late_report"],
    *["message"] * 3,
    *["beat"] * 3,
    *["work"] * 6,
]


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.integers(1, 160))
def test_no_message_is_lost_doubled_or_overtaken(seed: int, length: int) -> None:
    world = World(Random(seed))
    for _ in range(length):
        getattr(world, world.random.choice(ACTIONS))()
        if world.random.random() < 0.7:
            world.schedule(0)
        if world.random.random() < 0.3:
            world.schedule(1, lag=world.random.randrange(4))
    world.calm_down()
    live = [w for w in world.fold.workers.values() if w.live]
    assert all(w.actor_id in world.actors for w in live)
    assert not [w for w in live if w.status is WorkerStatus.BUSY], "a worker is busy with nothing"
