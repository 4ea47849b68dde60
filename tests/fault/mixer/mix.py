"""A mix of load and plugs, from its seed to its account."""

import asyncio
import time
from collections.abc import Callable, Mapping

import msgspec

from abaco_jetstream import Connection, JetStreamEventLog
from abaco_proto.errors import Unavailable
from abaco_proto.names import all_events_filter
from deadlines import LIMIT_SECONDS
from engine_server import EngineServer
from fault.mixer.holdings import Books, Holdings, control_groups, grown
from fault.mixer.load import Load
from fault.mixer.plan import LISTENER, Plan, draw
from fault.mixer.plugs import Plugs
from fault.mixer.reckoning import History, Reckoning, Sent, reckon
from stack import Stack

PROGRESS_SECONDS = 10.0
WARM_SECONDS = 5.0
"""So long there is load, and no plug is pulled: memory is compared with that of a stack at work."""

QUIET_SECONDS = 3.0
SETTLE_SECONDS = 2 * LIMIT_SECONDS
LEAK_SECONDS = 2.5 * LIMIT_SECONDS
"""What is dropped in the background, or given back to the system late, is given time: a program in
Go collects its garbage every two minutes at the least."""

MOST_GROWTH = 0.2
"""The memory of a service is a fifth more than at the start at most."""

STORES = frozenset({"nats", "postgres"})
STORES_GROWTH = 10.0
"""Who keeps the data has an index of it: there ten MiB more are no leak. NATS begins with seven.
What is more than that is held against one that begins anew with the same data."""

Say = Callable[[str], object]


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """How it went: see :mod:`fault.mixer.reckoning` and :mod:`fault.mixer.holdings`."""

    reckoning: Reckoning
    pulled: dict[str, int]
    before: Holdings
    after: Holdings
    anew: dict[str, float]
    """Memory in MiB of stores that were begun anew at the end, as they had become larger."""

    faults: list[str]


class Mix:
    """One stack under load, and its plugs pulled."""

    def __init__(self, stack: Stack, engine: EngineServer, plan: Plan, say: Say) -> None:
        """The stack is up, and nothing was ever asked of it."""
        self._stack = stack
        self._plan = plan
        self._say = say
        self._books = Books(stack.folder, engine)
        self._plugs = Plugs(stack.folder, engine)
        self._load = Load(stack.url)
        self._history = History()
        self._connection = Connection(stack.status()["nats_url"], name="mixer", timeout=10)

    async def run(self) -> Account:
        """Warm up, mix, settle, and count."""
        await self._connection.open()
        try:
            await self._load.begin()
            await self._load.run(draw(-self._plan.seed - 1, WARM_SECONDS))
            await self._settled()
            before = await self._books.look(self._connection)
            self._say(f"warm after {len(self.sent)} requests")
            await self._mix()
            await self._settled()
            self._say("all that was accepted has ended")
            faults = await self._leaks(before)
            after = await self._books.look(self._connection)
            anew = await self._begun_anew(_larger(before.memory, after.memory) & STORES)
            faults += _heavier(anew, after.memory, "begun anew with the same data")
            actors = self._load.actors
            reckoning = reckon(
                self._history,
                self._load.sent,
                orderly=actors["orderly"],
                listener=actors[LISTENER],
            )
            faults += [*reckoning.faults, *await self._verified(), *await self._emptied()]
        finally:
            await self._load.close()
            await self._connection.close()
        pulled = dict(self._plugs.pulled)
        return Account(
            reckoning=reckoning,
            pulled=pulled,
            before=before,
            after=after,
            anew=anew,
            faults=faults,
        )

    @property
    def sent(self) -> list[Sent]:
        """What was sent so far."""
        return self._load.sent

    async def _mix(self) -> None:
        progress = asyncio.create_task(self._progress())
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._load.run(self._plan))
                tasks.create_task(self._plugs.run(self._plan))
        finally:
            progress.cancel()

    async def _progress(self) -> None:
        began = time.monotonic()
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            seconds, plugs = time.monotonic() - began, self._plugs.pulled.total()
            self._say(f"{seconds:5.0f} s: {len(self.sent)} requests, {plugs} plugs pulled")

    async def _settled(self) -> None:
        """Wait until all that was accepted has ended, and nothing happens any more."""
        deadline = time.monotonic() + SETTLE_SECONDS
        quiet_since = time.monotonic()
        while True:
            news = await self._learn()
            if news or self._history.open() or not self._books.running():
                quiet_since = time.monotonic()
            if time.monotonic() - quiet_since > QUIET_SECONDS and self._stack.ready():
                return
            if time.monotonic() > deadline:
                left = [f"{e.execution_id} {e.status}" for e in self._history.open()]
                self._say(f"not settled within {SETTLE_SECONDS} s: {left}")
                return
            await asyncio.sleep(0.25)

    async def _learn(self) -> int:
        """Take in what is new in the log; how many events."""
        before = len(self._history.events)
        try:
            log = JetStreamEventLog(self._connection).read(
                [all_events_filter()], after=self._history.last
            )
            async for batch in log:
                self._history.learn(batch)
        except Unavailable:
            return 1
        return len(self._history.events) - before

    async def _leaks(self, before: Holdings) -> list[str]:
        """Resources that are held and were not before, after a timeout."""
        deadline = time.monotonic() + LEAK_SECONDS
        while True:
            after = await self._books.look(self._connection)
            faults = _more(before.connections, after.connections, "connections: ")
            faults += _more(before.consumers, after.consumers, "consumers of ")
            larger = _larger(before.memory, after.memory)
            if not (faults or larger) or time.monotonic() > deadline:
                own = {name: before.memory[name] for name in larger - STORES}
                return faults + _heavier(own, after.memory, "before")
            await asyncio.sleep(1)

    async def _begun_anew(self, names: set[str]) -> dict[str, float]:
        """The memory of stores that are begun anew, once others have read all that is in them."""
        if not names:
            return {}
        self._plugs.kill(*names)
        await self._settled()
        await self._verified()
        await self._learn()
        memory = (await self._books.look(self._connection)).memory
        return {name: memory[name] for name in names}

    async def _verified(self) -> list[str]:
        """What ``abaco verify`` has to say, once the read models have seen everything."""
        said = ""
        for _ in range(30):
            done = await asyncio.to_thread(self._stack.abaco, "verify")
            said = done.stdout + done.stderr
            if done.returncode == 0 and "not seen" not in said:
                self._say(f"verify: {said.strip()}")
                return []
            await asyncio.sleep(1)
        return [f"verify: {said.strip()}"]

    async def _emptied(self) -> list[str]:
        """Without actors there is nothing: no container, folder, mount, launcher or group."""
        for actor in self._stack.try_list("/actors"):
            self._stack.call("DELETE", f"/actors/{actor['id']}")
        deadline = time.monotonic() + LEAK_SECONDS
        while time.monotonic() < deadline:
            books = self._books
            left = [
                *(books.containers() + books.folders() + books.mounts()),
                *(f"launcher {pid}" for pid in books.launchers()),
                *control_groups(self._history.container_ids()),
            ]
            if not left:
                return []
            await asyncio.sleep(0.5)
        return [f"left when all actors were deleted: {each}" for each in left]


def _more(before: Mapping[str, int], after: Mapping[str, int], what: str) -> list[str]:
    return [
        f"{what}{name}: {before.get(name, 0)} before, {count} after"
        for name, count in after.items()
        if count > before.get(name, 0)
    ]


def _heavier(was: Mapping[str, float], after: Mapping[str, float], when: str) -> list[str]:
    larger = _larger(was, after)
    return [
        f"memory of {name}: {was[name]:.1f} MiB {when}, {growth:+.0%} after"
        for name, growth in grown(was, after)
        if name in larger
    ]


def _larger(was: Mapping[str, float], after: Mapping[str, float]) -> set[str]:
    """Who has grown by more than may be."""
    return {
        name
        for name, growth in grown(was, after)
        if growth > MOST_GROWTH and (name not in STORES or growth * was[name] > STORES_GROWTH)
    }


def table(plan: Plan, account: Account) -> str:
    """The account, for a person."""
    lines = [f"seed {plan.seed}, {plan.seconds:.0f} s"]
    lines += [f"{name:<28}{count:>8}" for name, count in account.reckoning.counts.items()]
    lines += ["", "killed"]
    lines += [f"  {name:<26}{count:>8}" for name, count in sorted(account.pulled.items())]
    lines += ["", f"{'memory, MiB':<28}{'before':>8}{'after':>8}"]
    for name, growth in grown(account.before.memory, account.after.memory):
        was, now = account.before.memory[name], account.after.memory.get(name, 0)
        lines.append(f"  {name:<26}{was:>8.1f}{now:>8.1f}  {growth:+.0%}")
    lines += [f"  {name + ' begun anew':<26}{was:>8.1f}" for name, was in account.anew.items()]
    for kind in ("connections", "consumers"):
        lines += ["", kind]
        was, now = getattr(account.before, kind), getattr(account.after, kind)
        for name in sorted({*was, *now}):
            lines.append(f"  {name:<26}{was.get(name, 0):>8}{now.get(name, 0):>8}")
    return "\n".join(lines)
