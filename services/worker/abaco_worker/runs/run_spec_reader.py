"""What an assignment is about, fetched from the log."""

import asyncio
from collections import OrderedDict
from typing import Any

import msgspec

from abaco_jetstream.ports import EventLog
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Undecodable
from abaco_proto.subjects import actor_filter, type_filter
from abaco_worker.app.waiting import patiently
from abaco_worker.domain.run_spec import Order

REMEMBERED = 1000
REMEMBERED_BYTES = 32 * 1024 * 1024
"""Of the events as they are stored: states and environments can be large."""

Defined = ev.ActorRegistered | ev.ActorUpdated


class Orders:
    """Orders from the log; the definitions and states they rest on are remembered."""

    def __init__(self, log: EventLog) -> None:
        """Nothing is remembered yet."""
        self._log = log
        self._known: OrderedDict[int, tuple[ev.Event, int]] = OrderedDict()
        self._known_bytes = 0

    async def fetch(self, recorded: Recorded, event: ev.ExecutionAssigned) -> Order:
        """All that the run of an assignment needs to know.

        Raises:
            Undecodable: the log does not hold what the assignment says.
        """
        defined, accepted, state = await asyncio.gather(
            self.definition_at(event.actor_sequence),
            self._at(event.message_sequence),
            self._state(recorded.tenant, event),
        )
        message = accepted.event if accepted is not None else None
        if accepted is None or not isinstance(message, ev.MessageReceived):
            raise Undecodable(f"no message at {event.message_sequence} in the log")
        order = Order(
            recorded=recorded,
            assignment=event,
            definition=defined.definition,
            revision=defined.revision,
            message=message,
            accepted_at=accepted.time,
            state=state[0],
            state_sequence=state[1],
        )
        return order if message.rerun is None else await self._as_then(order, message.rerun)

    async def definition_at(self, sequence: int) -> Defined:
        """The event at a place of the log, which holds a definition and its revision.

        Raises:
            Undecodable: there is none.
        """
        event = await self._remembered(sequence)
        if not isinstance(event, Defined):
            raise Undecodable(f"no definition of an actor at {sequence} in the log")
        return event

    async def newest_definition(self, tenant: str, actor_id: str) -> Defined | None:
        """An actor's definition now; None when there is no such actor (any more)."""
        last = await patiently(lambda: self._log.last(actor_filter(tenant, actor_id)))
        if last is None or isinstance(last.event, ev.ActorDeleted):
            return None
        updated = await self._last(tenant, actor_id, ev.ActorUpdated)
        found = updated or await self._last(tenant, actor_id, ev.ActorRegistered)
        return found.event if found is not None and isinstance(found.event, Defined) else None

    async def _as_then(self, order: Order, rerun: ev.Rerun) -> Order:
        """The order with the inputs of the run that is run again; the limits are those of then."""
        defined = await self.definition_at(rerun.actor_sequence)
        state = await self._remembered(rerun.state_sequence) if rerun.state_sequence else None
        return msgspec.structs.replace(
            order,
            definition=defined.definition,
            state=getattr(state, "state", ""),
            state_sequence=rerun.state_sequence,
        )

    async def _state(self, tenant: str, event: ev.ExecutionAssigned) -> tuple[Any, int]:
        """The actor's state for a run, and where it stands in the log."""
        sequence = event.state_sequence
        if sequence is not None:
            state = await self._remembered(sequence) if sequence else None
            return getattr(state, "state", ""), sequence
        found = await self._last(tenant, event.actor_id, ev.ActorStateSet)
        return ("", 0) if found is None else (getattr(found.event, "state", ""), found.sequence)

    async def _remembered(self, sequence: int) -> ev.Event | None:
        """The event at a place of the log, which many runs may ask for: it never changes."""
        if sequence in self._known:
            self._known.move_to_end(sequence)
            return self._known[sequence][0]
        recorded = await self._at(sequence)
        if recorded is None:
            return None
        self._remember(recorded)
        return recorded.event

    def _remember(self, recorded: Recorded) -> None:
        """Keep an event, and forget those that nobody asked for longest."""
        _, known = self._known.pop(recorded.sequence, (None, 0))
        self._known[recorded.sequence] = recorded.event, len(recorded.raw)
        self._known_bytes += len(recorded.raw) - known
        while len(self._known) > REMEMBERED or self._known_bytes > REMEMBERED_BYTES:
            _, (_, forgotten) = self._known.popitem(last=False)
            self._known_bytes -= forgotten

    async def _last(self, tenant: str, actor_id: str, kind: type[ev.Event]) -> Recorded | None:
        return await patiently(lambda: self._log.last(type_filter(tenant, actor_id, kind)))

    async def _at(self, sequence: int) -> Recorded | None:
        return await patiently(lambda: self._log.at(sequence))
