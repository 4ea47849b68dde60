"""The run specification reader: reads from the log what an assignment refers to."""

import asyncio
from collections import OrderedDict
from typing import Any

from msgspec.structs import replace

from abaco_jetstream.ports import EventLog
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Undecodable
from abaco_proto.names import actor_filter, type_filter
from abaco_worker.app.waiting import retry_log
from abaco_worker.domain.run_spec import RunSpec

MAX_CACHED = 1000
MAX_CACHED_BYTES = 32 * 1024 * 1024
"""The size of the cached events as they are stored: states and environments can be large."""

Defined = ev.ActorRegistered | ev.ActorUpdated


class RunSpecReader:
    """Reads run specifications; the definitions and states that they refer to are cached.

    If the log is unavailable, every method waits.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._cache: OrderedDict[int, tuple[ev.Event, int]] = OrderedDict()
        self._cache_bytes = 0

    async def read(self, recorded: Recorded, event: ev.ExecutionAssigned) -> RunSpec:
        """Return all that the run of an assignment needs.

        Raises:
            Undecodable: the log does not contain what the assignment refers to.
        """
        defined, accepted, state = await asyncio.gather(
            self.definition_at(event.actor_sequence),
            self._at(event.message_sequence),
            self._state(recorded.tenant, event),
        )
        message = accepted.event if accepted is not None else None
        if accepted is None or not isinstance(message, ev.MessageReceived):
            raise Undecodable(f"no message at {event.message_sequence} in the log")
        run_spec = RunSpec(
            recorded=recorded,
            assignment=event,
            definition=defined.definition,
            revision=defined.revision,
            message=message,
            accepted_at=accepted.time,
            state=state[0],
            state_sequence=state[1],
        )
        if message.rerun is None:
            return run_spec
        return await self._with_earlier_inputs(run_spec, message.rerun)

    async def definition_at(self, sequence: int) -> Defined:
        """Return the event with this sequence, which contains a definition and its revision.

        Raises:
            Undecodable: there is no such event.
        """
        event = await self._cached(sequence)
        if not isinstance(event, Defined):
            raise Undecodable(f"no definition of an actor at {sequence} in the log")
        return event

    async def newest_definition(self, tenant: str, actor_id: str) -> tuple[Defined, int] | None:
        """Return an actor's current definition and its sequence; None if there is no actor."""
        last = await retry_log(lambda: self._log.last(actor_filter(tenant, actor_id)))
        if last is None or isinstance(last.event, ev.ActorDeleted):
            return None
        updated = await self._last(tenant, actor_id, ev.ActorUpdated)
        found = updated or await self._last(tenant, actor_id, ev.ActorRegistered)
        if found is None or not isinstance(found.event, Defined):
            return None
        return found.event, found.sequence

    async def _with_earlier_inputs(self, run_spec: RunSpec, rerun: ev.Rerun) -> RunSpec:
        """Return the spec with the definition, limits and state of the run that it repeats."""
        defined = await self.definition_at(rerun.actor_sequence)
        state = await self._cached(rerun.state_sequence) if rerun.state_sequence else None
        return replace(
            run_spec,
            definition=defined.definition,
            state=getattr(state, "state", ""),
            state_sequence=rerun.state_sequence,
        )

    async def _state(self, tenant: str, event: ev.ExecutionAssigned) -> tuple[Any, int]:
        """Return the actor's state for a run, and its sequence."""
        sequence = event.state_sequence
        if sequence is not None:
            state = await self._cached(sequence) if sequence else None
            return getattr(state, "state", ""), sequence
        found = await self._last(tenant, event.actor_id, ev.ActorStateSet)
        return ("", 0) if found is None else (getattr(found.event, "state", ""), found.sequence)

    async def _cached(self, sequence: int) -> ev.Event | None:
        """Return the event with this sequence, from the cache if possible: it never changes."""
        if sequence in self._cache:
            self._cache.move_to_end(sequence)
            return self._cache[sequence][0]
        recorded = await self._at(sequence)
        if recorded is None:
            return None
        self._add_to_cache(recorded)
        return recorded.event

    def _add_to_cache(self, recorded: Recorded) -> None:
        """Cache an event, and drop the least recently used ones beyond the bounds."""
        _, previous_bytes = self._cache.pop(recorded.sequence, (None, 0))
        self._cache[recorded.sequence] = recorded.event, len(recorded.raw)
        self._cache_bytes += len(recorded.raw) - previous_bytes
        while len(self._cache) > MAX_CACHED or self._cache_bytes > MAX_CACHED_BYTES:
            _, (_, dropped_bytes) = self._cache.popitem(last=False)
            self._cache_bytes -= dropped_bytes

    async def _last(self, tenant: str, actor_id: str, kind: type[ev.Event]) -> Recorded | None:
        return await retry_log(lambda: self._log.last(type_filter(tenant, actor_id, kind)))

    async def _at(self, sequence: int) -> Recorded | None:
        return await retry_log(lambda: self._log.at(sequence))
