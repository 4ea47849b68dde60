"""What interrupts a run from outside: a person who halts it, or a scheduler that gave the seat up.

Both are events in the log, addressed to nobody, and rare; every host follows all of them. One may
come before the assignment it is about, so the last ones are remembered. One from before this
process is found by looking into the log, as with everything that comes again.
"""

import asyncio
from collections import OrderedDict
from weakref import WeakValueDictionary

from abaco_proto import events as ev
from abaco_proto.envelope import Recorded

REMEMBERED = 10_000

Key = tuple[str, str]
"""Tenant, and the id of an execution or of a worker."""


class Interruptions:
    """Which executions are to halt, and which workers are lost.

    What somebody waits for lives as long as he waits; what was said, until much else was.
    """

    def __init__(self) -> None:
        """Nothing was interrupted yet."""
        self._awaited: WeakValueDictionary[Key, asyncio.Event] = WeakValueDictionary()
        self._said: OrderedDict[Key, asyncio.Event] = OrderedDict()

    def learn(self, recorded: Recorded) -> None:
        """Take note of an event."""
        match recorded.event:
            case ev.ExecutionHaltRequested() as event:
                self.interrupt(recorded.tenant, event.execution_id)
            case ev.WorkerLost() as event:
                self.interrupt(recorded.tenant, event.worker_id)

    def interrupt(self, tenant: str, id: str) -> None:  # noqa: A002 - it is one
        """Take note that an execution, or a worker, is interrupted."""
        event = self.of(tenant, id)
        event.set()
        self._said[tenant, id] = event
        self._said.move_to_end((tenant, id))
        while len(self._said) > REMEMBERED:
            self._said.popitem(last=False)

    def of(self, tenant: str, id: str) -> asyncio.Event:  # noqa: A002 - it is one
        """Set when the execution, or the worker, is interrupted. To be kept while it matters."""
        event = self._awaited.get((tenant, id)) or asyncio.Event()
        self._awaited[tenant, id] = event
        return event
