"""A snapshot plus the events after it equal the whole log; an invalid snapshot is ignored."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as replace_struct

import builders as b
from abaco_jetstream import Connection
from abaco_jetstream.ports import Heartbeats
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded, draft
from abaco_proto.heartbeat import Heartbeat
from abaco_scheduler.app.code_digest import code_digest
from abaco_scheduler.app.scheduler_loop import Scheduler
from abaco_scheduler.app.snapshot_manager import INTERVAL_EVENTS, SNAPSHOT_NAME, SnapshotManager
from abaco_scheduler.domain.cluster import Cluster, apply_event
from abaco_scheduler.domain.cluster_snapshot import compress, decode, encode, event_digest, restore
from abaco_scheduler.domain.decision import Decision, Now
from abaco_scheduler.domain.plan import plan
from deadlines import LIMIT_SECONDS
from fakes import InMemoryEventLog, InMemorySnapshots
from unit.test_scheduler_properties import ACTIONS, HOSTS, POLICY, World

CODE = "this"
UNRECOGNIZED = ev.Unrecognized(raw=b"", reason="")


def folded(log: Sequence[Recorded], cluster: Cluster | None = None) -> Cluster:
    cluster = cluster or Cluster()
    for recorded in log:
        apply_event(cluster, recorded)
    return cluster


def over_a_start(cluster: Cluster) -> Cluster:
    snapshot = decode(compress(encode(cluster, CODE, "", b.T0)), CODE)
    assert snapshot is not None
    return restore(snapshot)


def known(cluster: Cluster) -> Cluster:
    """All but heartbeats and the keys of removed actors: neither is in a snapshot."""
    return replace(
        cluster,
        hosts={
            k: replace(h, announced_capacity=0, last_heartbeat=0.0)
            for k, h in cluster.hosts.items()
        },
        unreconciled={key for key in cluster.unreconciled if key in cluster.actors},
    )


def decisions(cluster: Cluster, seconds: float) -> list[Decision]:
    for host_id, capacity in HOSTS.items():
        cluster.record_heartbeat(Heartbeat(host_id=host_id, capacity=capacity), "default", seconds)
    time = b.T0 + timedelta(seconds=seconds)
    return plan(cluster, POLICY, Now(time=time, monotonic=seconds, connected_since=0))


def history(random: Random, length: int) -> list[Recorded]:
    world = World(random)
    for _ in range(length):
        getattr(world, random.choice(ACTIONS))()
        if random.random() < 0.7:
            world.schedule(0)
    return world.log


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.integers(1, 160), cut_at=st.floats(0, 1))
def test_a_snapshot_and_the_rest_are_the_whole_log(seed: int, length: int, cut_at: float) -> None:
    log = history(Random(seed), length)
    cut = round(cut_at * len(log))
    before = folded(log[:cut])
    decisions(before, length)  # plans and heartbeats before the snapshot make no difference
    through = folded(log[cut:], over_a_start(before))
    whole = folded(log)
    assert known(through) == known(whole)
    for seconds in (length, length + 100.0):
        assert decisions(through, seconds) == decisions(whole, seconds)


# -- the snapshot manager --------------------------------------------------------------------------


class Stage:
    def __init__(self) -> None:
        self.log = InMemoryEventLog()
        self.snapshots = InMemorySnapshots()
        self.cluster = Cluster()

    def manager(self, code: str = CODE) -> SnapshotManager:
        return SnapshotManager(self.snapshots, self.log, code)

    async def register(self, name: str = "foo") -> None:
        await self.append(
            ev.ActorRegistered(actor_id=f"{name}_0", definition=b.definition(name=name))
        )

    async def append(self, event: ev.Event) -> None:
        event_draft = draft(event, tenant="default", time=b.T0, causation_id="req-1")
        await self.log.append(event_draft)
        folded(self.log.events[self.cluster.sequence :], self.cluster)

    def store(self) -> None:
        taken = encode(self.cluster, CODE, event_digest(self.log.events[-1]), b.T0)
        self.snapshots.values[SNAPSHOT_NAME] = compress(taken)


@pytest.fixture
async def stage() -> Stage:
    stage = Stage()
    await stage.register()
    stage.store()
    return stage


async def test_a_scheduler_begins_with_the_snapshot(stage: Stage) -> None:
    assert known(await stage.manager().load(b.T0)) == known(stage.cluster)


async def test_without_a_snapshot_the_whole_log_is_read(stage: Stage) -> None:
    del stage.snapshots.values[SNAPSHOT_NAME]
    assert await stage.manager().load(b.T0) == Cluster()


async def test_a_snapshot_of_other_code_is_ignored(stage: Stage) -> None:
    assert await stage.manager("other").load(b.T0) == Cluster()


async def test_a_snapshot_of_another_log_is_ignored(stage: Stage) -> None:
    stage.log = InMemoryEventLog()
    assert await stage.manager().load(b.T0) == Cluster()
    await stage.register("bar")
    assert await stage.manager().load(b.T0) == Cluster()


async def test_a_snapshot_from_the_future_is_ignored(stage: Stage) -> None:
    assert await stage.manager().load(b.T0 - timedelta(seconds=1)) == Cluster()


@pytest.mark.parametrize("at", [0, 40, -1])
async def test_a_damaged_snapshot_is_ignored(stage: Stage, at: int) -> None:
    damaged = bytearray(stage.snapshots.values[SNAPSHOT_NAME])
    damaged[at] ^= 1
    stage.snapshots.values[SNAPSHOT_NAME] = bytes(damaged)
    assert await stage.manager().load(b.T0) == Cluster()


async def test_without_an_answer_the_whole_log_is_read(stage: Stage) -> None:
    stage.snapshots.available = False
    assert await stage.manager().load(b.T0) == Cluster()


async def test_a_snapshot_is_taken_when_the_log_has_grown(stage: Stage) -> None:
    last = stage.log.events[-1]
    manager = stage.manager()
    assert await manager.load(b.T0) != Cluster()
    for sequence, expected in (
        (INTERVAL_EVENTS, False),
        (INTERVAL_EVENTS + 1, True),
        (INTERVAL_EVENTS + 2, False),
    ):
        stage.cluster.sequence = sequence
        assert manager.take_if_due(stage.cluster, last, b.T0) is expected, sequence


def test_the_code_digest_covers_all_source_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "some_package" / "inner").mkdir(parents=True)
    module = tmp_path / "some_package" / "inner" / "fold.py"
    digests = set()
    for source in ("a = 1", "a = 2", "a = 1"):
        module.write_text(source)
        digests.add(code_digest(["some_package"]))
    assert len(digests) == 2
    assert code_digest() not in digests


# -- large ones ----------------------------------------------------------------------------------


ABANDONED = 600_000


class SmallMessages(InMemorySnapshots):
    """Of a server that takes a mebibyte at once, as NATS does unless it is told otherwise."""

    MOST_BYTES = 1024 * 1024

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    async def put(self, name: str, value: bytes) -> None:
        self.largest = max(self.largest, len(value))
        await super().put(name, value)


def abandon(cluster: Cluster, count: int) -> None:
    """As many executions, abandoned after three attempts each, in the order of a random log."""
    random = Random(7)
    inbox = cluster.actors["default", "foo_0"].inbox
    sequence = 0
    for ordinal in range(count):
        sequence += random.randint(1, 12)
        inbox.abandoned.add(ordinal, sequence, 3)


async def stored(stage: Stage) -> None:
    """Have the cluster as it is now stored."""
    manager = SnapshotManager(stage.snapshots, stage.log, CODE, interval_events=0)
    assert manager.take_if_due(stage.cluster, stage.log.events[-1], b.T0)
    storing = asyncio.create_task(manager.run())
    before = dict(stage.snapshots.values)
    async with asyncio.timeout(60):
        while stage.snapshots.values.get(SNAPSHOT_NAME) == before.get(SNAPSHOT_NAME):
            await asyncio.sleep(0.01)
    storing.cancel()


async def test_six_hundred_thousand_abandoned_executions_are_stored_in_small_messages() -> None:
    stage = Stage()
    stage.snapshots = small = SmallMessages()
    await stage.register()
    abandon(stage.cluster, ABANDONED)
    await stored(stage)
    assert 0 < small.largest < small.MOST_BYTES
    found = await stage.manager().load(b.T0)
    assert known(found) == known(stage.cluster)
    assert len(found.actors["default", "foo_0"].inbox.abandoned) == ABANDONED


async def test_the_next_large_snapshot_uses_other_parts_until_it_is_complete() -> None:
    stage = Stage()
    stage.snapshots = SmallMessages()
    await stage.register()
    abandon(stage.cluster, ABANDONED)
    await stored(stage)
    first = dict(stage.snapshots.values)
    await stage.register("bar")
    await stored(stage)
    assert known(await stage.manager().load(b.T0)) == known(stage.cluster)
    # As if the scheduler had stopped before it stored the index.
    stage.snapshots.values[SNAPSHOT_NAME] = first[SNAPSHOT_NAME]
    assert [*(await stage.manager().load(b.T0)).actors] == [("default", "foo_0")]
    del stage.snapshots.values[f"{SNAPSHOT_NAME}-a-0"]
    assert await stage.manager().load(b.T0) == Cluster()


async def test_a_failure_to_store_is_logged_with_cause_and_remedy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = Stage()
    await stage.register()
    stage.snapshots.available = False
    manager = SnapshotManager(stage.snapshots, stage.log, CODE, interval_events=0)
    assert manager.take_if_due(stage.cluster, stage.log.events[-1], b.T0)
    storing = asyncio.create_task(manager.run())
    async with asyncio.timeout(10):
        while "not stored" not in caplog.text:
            await asyncio.sleep(0.01)
    storing.cancel()
    assert "not available" in caplog.text
    assert "check the free disk space of NATS" in caplog.text


# -- in the scheduler's loop ---------------------------------------------------------------------


class Beating:
    """One host that sends heartbeats."""

    async def send(self, heartbeat: Heartbeat) -> None: ...

    async def listen(self) -> AsyncGenerator[Heartbeat, None]:
        while True:
            await asyncio.sleep(0.01)
            yield Heartbeat(host_id="h1", capacity=2)


async def test_a_host_that_was_removed_as_lost_joins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("abaco_scheduler.domain.cluster.MAX_LOST_HOSTS", 0)
    stage = Stage()
    for event in (b.joined("h1"), ev.HostLost(host_id="h1", reason="silent")):
        await stage.append(event)
    assert not stage.cluster.hosts
    async with scheduling(stage, Beating()), asyncio.timeout(10):
        while not isinstance(stage.log.events[-1].event, ev.HostJoined):
            await asyncio.sleep(0.01)


class Silence:
    """No heartbeats at all."""

    async def send(self, heartbeat: Heartbeat) -> None: ...

    async def listen(self) -> AsyncGenerator[Heartbeat, None]:
        await asyncio.Event().wait()
        yield Heartbeat(host_id="", capacity=0)


@asynccontextmanager
async def scheduling(
    stage: Stage, heartbeats: Heartbeats | None = None
) -> AsyncGenerator[Scheduler, None]:
    manager = SnapshotManager(stage.snapshots, stage.log, CODE, interval_events=3)
    nowhere = Connection("nats://nowhere:1", name="test")  # never opened
    received = heartbeats or Silence()
    scheduler = Scheduler(stage.log, received, nowhere, POLICY, "default", snapshots=manager)
    running = asyncio.create_task(scheduler.run())
    try:
        yield scheduler
    finally:
        running.cancel()
        await asyncio.wait({running})


async def becomes(stage: Stage, sequence: int) -> None:
    """Wait until the snapshot is of that event."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            found = decode(stage.snapshots.values.get(SNAPSHOT_NAME, b""), CODE)
            if found is not None and found.sequence == sequence:
                return
            await asyncio.sleep(0.01)


async def test_the_scheduler_takes_them_and_begins_with_them() -> None:
    stage = Stage()
    await stage.register()
    for ordinal in range(3):
        await stage.append(b.received(ordinal, "foo_0"))
    async with scheduling(stage):
        await becomes(stage, 4)
    # What the snapshot rests on is not read again: otherwise the actor would be missing.
    stage.log.events[:3] = [replace_struct(r, event=UNRECOGNIZED) for r in stage.log.events[:3]]
    async with scheduling(stage):
        for ordinal in range(3, 6):
            await stage.append(b.received(ordinal, "foo_0"))
        await becomes(stage, 7)
    found = decode(stage.snapshots.values[SNAPSHOT_NAME], CODE)
    assert found is not None
    assert [[*state.inbox.waiting] for state in found.actors] == [[2, 3, 4, 5, 6, 7]]
