"""What interrupts a run from outside: a person who halts it, or a scheduler that gave the seat up.

Both are events in the log, addressed to nobody, and rare; every host follows all of them. One may
come before the assignment it is about, so the last ones are remembered. One from before this
process is found by looking into the log, as with everything that comes again.
"""

import asyncio
from collections import OrderedDict

from abaco_proto import events as ev
from abaco_proto.envelope import Recorded

REMEMBERED = 10_000

Key = tuple[str, str]
"""Tenant, and the id of an execution or of a worker."""


class Interruptions:
    """Which executions are to halt, and which workers are lost."""

    def __init__(self) -> None:
        """Nothing was interrupted yet."""
        self._known: OrderedDict[Key, asyncio.Event] = OrderedDict()

    def learn(self, recorded: Recorded) -> None:
        """Take note of an event."""
        match recorded.event:
            case ev.ExecutionHaltRequested() as event:
                self.of(recorded.tenant, event.execution_id).set()
            case ev.WorkerLost() as event:
                self.of(recorded.tenant, event.worker_id).set()

    def of(self, tenant: str, id: str) -> asyncio.Event:  # noqa: A002 - it is one
        """Set when the execution, or the worker, is interrupted."""
        key = (tenant, id)
        event = self._known.setdefault(key, asyncio.Event())
        self._known.move_to_end(key)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return event
