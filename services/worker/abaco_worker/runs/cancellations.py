"""Cancellations: a halt by a person, or the loss of the worker, ends a run from outside.

Both are events in the log that address no host. They are rare, and every host follows all of them.
One may come before the assignment that it concerns, so the last ones are kept. Those from before
the start of this process are found in the log, with the state of the work item.
"""

import asyncio
from collections import OrderedDict
from weakref import WeakValueDictionary

from abaco_proto import events as ev
from abaco_proto.envelope import Recorded

MAX_RECEIVED = 10_000

Key = tuple[str, str]
"""The tenant, and the id of an execution or of a worker."""


class Cancellations:
    """Which executions are halted, and which workers are lost.

    A cancellation that someone awaits is kept as long as that. A received one is kept in a bounded
    cache.
    """

    def __init__(self) -> None:
        self._awaited: WeakValueDictionary[Key, asyncio.Event] = WeakValueDictionary()
        self._received: OrderedDict[Key, asyncio.Event] = OrderedDict()

    def apply(self, recorded: Recorded) -> None:
        """Apply an event of the log."""
        match recorded.event:
            case ev.ExecutionHaltRequested() as event:
                self.cancel(recorded.tenant, event.execution_id)
            case ev.WorkerLost() as event:
                self.cancel(recorded.tenant, event.worker_id)

    def cancel(self, tenant: str, id: str) -> None:  # noqa: A002 - it is one
        """Mark an execution or a worker as cancelled."""
        event = self.event_of(tenant, id)
        event.set()
        self._received[tenant, id] = event
        self._received.move_to_end((tenant, id))
        while len(self._received) > MAX_RECEIVED:
            self._received.popitem(last=False)

    def event_of(self, tenant: str, id: str) -> asyncio.Event:  # noqa: A002 - it is one
        """Return what is set when the execution or worker is cancelled; keep a reference to it."""
        event = self._awaited.get((tenant, id)) or asyncio.Event()
        self._awaited[tenant, id] = event
        return event
