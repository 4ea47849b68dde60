"""A snapshot and what came after it say what the whole log says; one that does not hold is none."""

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
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded, draft
from abaco_proto.jetstream import Connection
from abaco_proto.log import Heartbeat, Heartbeats
from abaco_scheduler import provenance
from abaco_scheduler.cluster import Cluster, observe
from abaco_scheduler.decision import Decision, Now
from abaco_scheduler.keeper import EVENTS, NAME, Keeper
from abaco_scheduler.loop import Scheduler
from abaco_scheduler.plan import plan
from abaco_scheduler.snapshot import packed, proof, restored, take, unpacked
from deadlines import LIMIT_SECONDS
from fakes import InMemoryEventLog, InMemorySnapshots
from unit.test_scheduler_properties import ACTIONS, HOSTS, POLICY, World

CODE = "this"
NOBODY = ev.Unrecognized(raw=b"", reason="")


def folded(log: Sequence[Recorded], cluster: Cluster | None = None) -> Cluster:
    cluster = cluster or Cluster()
    for recorded in log:
        observe(cluster, recorded)
    return cluster


def over_a_start(cluster: Cluster) -> Cluster:
    snapshot = unpacked(packed(take(cluster, CODE, "", b.T0)), CODE)
    assert snapshot is not None
    return restored(snapshot)


def known(cluster: Cluster) -> Cluster:
    """All but signs of life, and names of actors that are gone: neither is in a snapshot."""
    return replace(
        cluster,
        hosts={k: replace(h, offered=0, heard_at=0.0) for k, h in cluster.hosts.items()},
        unsettled={key for key in cluster.unsettled if key in cluster.desks},
    )


def decisions(cluster: Cluster, seconds: float) -> list[Decision]:
    for host_id, capacity in HOSTS.items():
        cluster.heard(Heartbeat(host_id=host_id, capacity=capacity), "default", seconds)
    time = b.T0 + timedelta(seconds=seconds)
    return plan(cluster, POLICY, Now(time=time, monotonic=seconds, listening_since=0))


def history(random: Random, length: int) -> list[Recorded]:
    world = World(random)
    for _ in range(length):
        getattr(world, random.choice(ACTIONS))()
        if random.random() < 0.7:
            world.schedule(0)
    return world.log


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.integers(1, 160), place=st.floats(0, 1))
def test_a_snapshot_and_the_rest_are_the_whole_log(seed: int, length: int, place: float) -> None:
    log = history(Random(seed), length)
    cut = round(place * len(log))
    before = folded(log[:cut])
    decisions(before, length)  # whatever was planned and heard until then makes no difference
    through = folded(log[cut:], over_a_start(before))
    whole = folded(log)
    assert known(through) == known(whole)
    for seconds in (length, length + 100.0):
        assert decisions(through, seconds) == decisions(whole, seconds)


# -- the keeper ----------------------------------------------------------------------------------


class Stage:
    def __init__(self) -> None:
        self.log = InMemoryEventLog()
        self.snapshots = InMemorySnapshots()
        self.cluster = Cluster()

    def keeper(self, code: str = CODE) -> Keeper:
        return Keeper(self.snapshots, self.log, code)

    async def register(self, name: str = "foo") -> None:
        await self.append(
            ev.ActorRegistered(actor_id=f"{name}_0", definition=b.definition(name=name))
        )

    async def append(self, event: ev.Event) -> None:
        wish = draft(event, tenant="default", time=b.T0, causation_id="req-1")
        await self.log.append(wish)
        folded(self.log.events[self.cluster.sequence :], self.cluster)

    def keep(self) -> None:
        taken = take(self.cluster, CODE, proof(self.log.events[-1]), b.T0)
        self.snapshots.values[NAME] = packed(taken)


@pytest.fixture
async def stage() -> Stage:
    stage = Stage()
    await stage.register()
    stage.keep()
    return stage


async def test_a_scheduler_begins_with_the_snapshot(stage: Stage) -> None:
    assert known(await stage.keeper().newest(b.T0)) == known(stage.cluster)


async def test_without_one_it_begins_at_the_beginning(stage: Stage) -> None:
    del stage.snapshots.values[NAME]
    assert await stage.keeper().newest(b.T0) == Cluster()


async def test_one_of_other_code_is_thrown_away(stage: Stage) -> None:
    assert await stage.keeper("other").newest(b.T0) == Cluster()


async def test_one_of_another_log_is_thrown_away(stage: Stage) -> None:
    stage.log = InMemoryEventLog()
    assert await stage.keeper().newest(b.T0) == Cluster()
    await stage.register("bar")
    assert await stage.keeper().newest(b.T0) == Cluster()


async def test_one_of_a_clock_that_was_ahead_is_thrown_away(stage: Stage) -> None:
    assert await stage.keeper().newest(b.T0 - timedelta(seconds=1)) == Cluster()


@pytest.mark.parametrize("at", [0, 40, -1])
async def test_a_damaged_one_is_thrown_away(stage: Stage, at: int) -> None:
    damaged = bytearray(stage.snapshots.values[NAME])
    damaged[at] ^= 1
    stage.snapshots.values[NAME] = bytes(damaged)
    assert await stage.keeper().newest(b.T0) == Cluster()


async def test_without_an_answer_it_begins_at_the_beginning(stage: Stage) -> None:
    stage.snapshots.available = False
    assert await stage.keeper().newest(b.T0) == Cluster()


async def test_it_is_taken_when_the_log_has_grown(stage: Stage) -> None:
    last = stage.log.events[-1]
    keeper = stage.keeper()
    assert await keeper.newest(b.T0) != Cluster()
    for sequence, expected in ((EVENTS, False), (EVENTS + 1, True), (EVENTS + 2, False)):
        stage.cluster.sequence = sequence
        assert keeper.look(stage.cluster, last, b.T0) is expected, sequence


def test_the_code_is_known_by_all_of_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "some_package" / "inner").mkdir(parents=True)
    module = tmp_path / "some_package" / "inner" / "fold.py"
    digests = set()
    for source in ("a = 1", "a = 2", "a = 1"):
        module.write_text(source)
        digests.add(provenance.digest(["some_package"]))
    assert len(digests) == 2
    assert provenance.digest() not in digests


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
    inbox = cluster.desks["default", "foo_0"].inbox
    sequence = 0
    for ordinal in range(count):
        sequence += random.randint(1, 12)
        inbox.abandoned.add(ordinal, sequence, 3)


async def stored(stage: Stage) -> None:
    """Have the cluster as it is now stored."""
    keeper = Keeper(stage.snapshots, stage.log, CODE, events=0)
    assert keeper.look(stage.cluster, stage.log.events[-1], b.T0)
    keeping = asyncio.create_task(keeper.run())
    before = dict(stage.snapshots.values)
    async with asyncio.timeout(60):
        while stage.snapshots.values.get(NAME) == before.get(NAME):
            await asyncio.sleep(0.01)
    keeping.cancel()


async def test_six_hundred_thousand_abandoned_executions_are_stored_in_small_messages() -> None:
    stage = Stage()
    stage.snapshots = small = SmallMessages()
    await stage.register()
    abandon(stage.cluster, ABANDONED)
    await stored(stage)
    assert 0 < small.largest < small.MOST_BYTES
    found = await stage.keeper().newest(b.T0)
    assert known(found) == known(stage.cluster)
    assert len(found.desks["default", "foo_0"].inbox.abandoned) == ABANDONED


async def test_the_next_large_one_takes_other_places_until_it_is_whole() -> None:
    stage = Stage()
    stage.snapshots = SmallMessages()
    await stage.register()
    abandon(stage.cluster, ABANDONED)
    await stored(stage)
    first = dict(stage.snapshots.values)
    await stage.register("bar")
    await stored(stage)
    assert known(await stage.keeper().newest(b.T0)) == known(stage.cluster)
    stage.snapshots.values[NAME] = first[NAME]  # as if it had stopped before the index
    assert [*(await stage.keeper().newest(b.T0)).desks] == [("default", "foo_0")]
    del stage.snapshots.values[f"{NAME}-a-0"]
    assert await stage.keeper().newest(b.T0) == Cluster()


async def test_one_that_cannot_be_stored_says_why_and_what_to_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = Stage()
    await stage.register()
    stage.snapshots.available = False
    keeper = Keeper(stage.snapshots, stage.log, CODE, events=0)
    assert keeper.look(stage.cluster, stage.log.events[-1], b.T0)
    keeping = asyncio.create_task(keeper.run())
    async with asyncio.timeout(10):
        while "not stored" not in caplog.text:
            await asyncio.sleep(0.01)
    keeping.cancel()
    assert "unplugged" in caplog.text
    assert "check the free disk space of NATS" in caplog.text


# -- in the scheduler's loop ---------------------------------------------------------------------


class Voices:
    """One host that says that it is there."""

    async def send(self, heartbeat: Heartbeat) -> None: ...

    async def listen(self) -> AsyncGenerator[Heartbeat, None]:
        while True:
            await asyncio.sleep(0.01)
            yield Heartbeat(host_id="h1", capacity=2)


async def test_a_host_that_was_forgotten_joins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("abaco_scheduler.cluster.MOST_AWAY", 0)
    stage = Stage()
    for event in (b.joined("h1"), ev.HostLost(host_id="h1", reason="silent")):
        await stage.append(event)
    assert not stage.cluster.hosts
    async with scheduling(stage, Voices()), asyncio.timeout(10):
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
    keeper = Keeper(stage.snapshots, stage.log, CODE, events=3)
    nowhere = Connection("nats://nowhere:1", name="test")  # never opened
    heard = heartbeats or Silence()
    scheduler = Scheduler(stage.log, heard, nowhere, POLICY, "default", keeper=keeper)
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
            found = unpacked(stage.snapshots.values.get(NAME, b""), CODE)
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
    # What the snapshot rests on is not read again: were it, there would be nobody.
    stage.log.events[:3] = [replace_struct(r, event=NOBODY) for r in stage.log.events[:3]]
    async with scheduling(stage):
        for ordinal in range(3, 6):
            await stage.append(b.received(ordinal, "foo_0"))
        await becomes(stage, 7)
    found = unpacked(stage.snapshots.values[NAME], CODE)
    assert found is not None
    assert [[*desk.inbox.waiting] for desk in found.desks] == [[2, 3, 4, 5, 6, 7]]
