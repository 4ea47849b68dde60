"""Which events a moment of the past needs to answer one question: few, however long the history.

The states of the moment are a fold of *all* events up to it. Most of them change nothing that is
asked about, or are undone by later ones. What is selected here is enough for the same answer:

* an actor: its registration, the last of each of its events, and of the events that change its
  status (``worker.ready``, ``worker.failed``, ``execution.started`` of the revision in force) the
  last ones that do;
* an execution: the events that name it, and the purges of the inbox;
* a worker: the events that name it, and those of the executions that it ran last.
"""

from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from typing import Protocol

from abaco_proto import events as ev
from abaco_proto.envelope import Recorded

SIGNALS = (ev.WorkerReady, ev.WorkerFailed, ev.ExecutionStarted)
"""The events beside ``actor.*`` that change an actor."""

DEFINITIONS = (ev.ActorRegistered, ev.ActorUpdated)
SUBSCRIPTIONS = (ev.ActorSubscribed, ev.ActorUnsubscribed)
STATES = (ev.ActorStateSet,)
PURGES = (ev.InboxPurged,)
FIRST_PAGE, LAST_PAGE = 4, 1024
"""Pages grow from the one to the other: most searches end in the first."""


class CopiedEvents(Protocol):
    """The events of one tenant, found by indexes."""

    async def before(
        self, actor_id: str, kinds: Sequence[type[ev.Event]], after: int, before: int, limit: int
    ) -> list[Recorded]:
        """The latest events of some types between two sequences, the latest first."""
        ...

    async def after(
        self, actor_id: str, kinds: Sequence[type[ev.Event]], after: int, before: int, limit: int
    ) -> list[Recorded]:
        """The earliest events of some types between two sequences."""
        ...

    async def named(self, ids: Sequence[str], before: int) -> list[Recorded]:
        """The events of some executions or workers, by their ids."""
        ...

    async def assignments(
        self, worker_ids: Sequence[str], before: int, limit: int
    ) -> list[Recorded]:
        """The latest ``limit`` assignments to each of some workers."""
        ...


class EventSelection:
    """The events that answers about the moment of ``sequence`` are folded from, in their order."""

    def __init__(self, events: CopiedEvents, sequence: int) -> None:
        self._events = events
        self._end = sequence + 1

    async def of_existence(self, actor_id: str) -> list[Recorded]:
        """The registration and the deletion of an actor, as far as there are any."""
        registered = await self._first(actor_id, [ev.ActorRegistered], after=0)
        if not registered:
            return []
        deleted = await self._first(actor_id, [ev.ActorDeleted], after=registered[0].sequence)
        return [*registered, *deleted]

    async def of_actor(self, actor_id: str) -> list[Recorded]:
        """The events that make an actor what it was."""
        existence = await self.of_existence(actor_id)
        if len(existence) != 1:
            return existence
        begin = existence[0].sequence
        changes = [
            *existence,
            *await self._events.before(actor_id, DEFINITIONS[1:], begin, self._end, 1),
            *await self._events.before(actor_id, STATES, begin, self._end, 1),
            *await self._all(actor_id, SUBSCRIPTIONS, begin),
        ]
        last = max(recorded.sequence for recorded in changes)
        definitions, signal = await self._status_before(actor_id, begin, last)
        later = await self._status_after(actor_id, definitions[0], last)
        return _in_order([*changes, *definitions, *signal, *later])

    async def of_executions(self, actor_id: str, ordinals: Collection[int]) -> list[Recorded]:
        """The events that make some executions what they were."""
        ids = [f"{actor_id}_exc_{ordinal}" for ordinal in ordinals]
        existence = await self.of_existence(actor_id)
        named = await self._events.named(ids, self._end)
        begin = min((recorded.sequence for recorded in named), default=self._end)
        purges = await self._all(actor_id, PURGES, begin)
        return _in_order([*existence, *named, *purges])

    async def of_workers(self, actor_id: str, worker_ids: Collection[str]) -> list[Recorded]:
        """The events that make some workers what they were."""
        existence = await self.of_existence(actor_id)
        named = await self._events.named(list(worker_ids), self._end)
        found = {recorded.sequence: recorded for recorded in (*existence, *named)}
        searched, limit = set(worker_ids), 2
        while searched:
            assigned = await self._events.assignments(list(searched), self._end, limit)
            runs = await self._events.named(sorted(set(map(_execution_id, assigned))), self._end)
            found |= {recorded.sequence: recorded for recorded in (*assigned, *runs)}
            searched = _without_start(searched, assigned, runs, limit)
            limit *= 4
        return [found[sequence] for sequence in sorted(found)]

    async def _status_before(
        self, actor_id: str, begin: int, last: int
    ) -> tuple[list[Recorded], list[Recorded]]:
        """What decides the status of an actor at its own last event.

        These are the last signal that was of the revision in force, and the definitions from the
        one that was in force then; without such a signal, all definitions. The latest comes first.
        """
        definitions: list[Recorded] = []
        signals = self._backwards(actor_id, SIGNALS, begin, last)
        found = self._backwards(actor_id, DEFINITIONS, begin - 1, last + 1)
        async with aclosing(signals), aclosing(found):
            signal = await anext(signals, None)
            async for definition in found:
                if _is_registration(definition) and definition.sequence != begin:
                    continue
                definitions.append(definition)
                while signal is not None and signal.sequence > definition.sequence:
                    if _revision(signal) == _revision(definition):
                        return definitions, [signal]
                    signal = await anext(signals, None)
        return definitions, []

    async def _status_after(self, actor_id: str, definition: Recorded, last: int) -> list[Recorded]:
        """What changes the status of an actor after its own last event.

        These are the last failure of a worker, and the first sign of health after it.
        """
        revision = _revision(definition)
        failed: list[Recorded] = []
        async with aclosing(self._backwards(actor_id, [ev.WorkerFailed], last, self._end)) as found:
            async for recorded in found:
                if _revision(recorded) == revision:
                    failed, last = [recorded], recorded.sequence
                    break
        kinds = (ev.WorkerReady, ev.ExecutionStarted)
        async with aclosing(self._forwards(actor_id, kinds, last)) as found:
            async for recorded in found:
                if _revision(recorded) == revision:
                    return [*failed, recorded]
        return failed

    async def _first(
        self, actor_id: str, kinds: Sequence[type[ev.Event]], after: int
    ) -> list[Recorded]:
        return await self._events.after(actor_id, kinds, after, self._end, 1)

    async def _all(
        self, actor_id: str, kinds: Sequence[type[ev.Event]], after: int
    ) -> list[Recorded]:
        async with aclosing(self._forwards(actor_id, kinds, after)) as found:
            return [recorded async for recorded in found]

    async def _backwards(
        self, actor_id: str, kinds: Sequence[type[ev.Event]], after: int, before: int
    ) -> AsyncGenerator[Recorded, None]:
        limit = FIRST_PAGE
        while page := await self._events.before(actor_id, kinds, after, before, limit):
            for recorded in page:
                yield recorded
            if len(page) < limit:
                return
            before, limit = page[-1].sequence, min(4 * limit, LAST_PAGE)

    async def _forwards(
        self, actor_id: str, kinds: Sequence[type[ev.Event]], after: int
    ) -> AsyncGenerator[Recorded, None]:
        limit = FIRST_PAGE
        while page := await self._events.after(actor_id, kinds, after, self._end, limit):
            for recorded in page:
                yield recorded
            if len(page) < limit:
                return
            after, limit = page[-1].sequence, min(4 * limit, LAST_PAGE)


def _in_order(events: Sequence[Recorded]) -> list[Recorded]:
    """Each once, by its sequence."""
    found = {recorded.sequence: recorded for recorded in events}
    return [found[sequence] for sequence in sorted(found)]


def _is_registration(recorded: Recorded) -> bool:
    return isinstance(recorded.event, ev.ActorRegistered)


def _revision(recorded: Recorded) -> int | None:
    return getattr(recorded.event, "revision", None)


def _execution_id(recorded: Recorded) -> str:
    return getattr(recorded.event, "execution_id", "")


def _without_start(
    searched: Collection[str], assigned: list[Recorded], runs: list[Recorded], limit: int
) -> set[str]:
    """The workers none of whose assignments was followed by a start, if there are more of these.

    A start is where a worker's container comes from, so what was before it need not be known.
    """
    counts = dict.fromkeys(searched, 0)
    for recorded in assigned:
        counts[getattr(recorded.event, "worker_id", "")] += 1
    starts = {
        recorded.event.worker_id
        for recorded in runs
        if isinstance(recorded.event, ev.ExecutionStarted)
    }
    return {worker for worker, count in counts.items() if count == limit and worker not in starts}
