"""Buffers writes while a shadow schema is built, which has no readers yet.

Every run changes its actor's totals and its worker, and passes through several states. Written with
each batch, these rows would be written many times. Buffered, an execution is written once, when it
has ended; the rest at the end, or when the buffer is full.
"""

from msgspec.structs import replace

from abaco_projector.domain.batch_fold import Changes
from abaco_proto.fold import States
from abaco_proto.state_keys import ExecutionKey

MAX_STATES = 15_000
"""Fewer than the state cache holds, so that a buffered state is never loaded from the rows."""


class WriteBuffer:
    """Changes that are not written yet."""

    def __init__(self) -> None:
        """Start empty."""
        self._states = States()
        self._inserted: set[ExecutionKey] = set()

    def add(self, changes: Changes) -> Changes:
        """Add the changes of a batch; return those, also of earlier batches, to write now.

        A bulk update is a statement over rows, so all changes before it must be written first.
        """
        for name in States.__struct_fields__:
            getattr(self._states, name).update(getattr(changes.states, name))
        self._inserted |= changes.inserted
        if changes.bulk_updates or self._is_full():
            everything = self.take_all()
            return replace(changes, states=everything.states, inserted=everything.inserted)
        ended = {key: e for key, e in changes.states.executions.items() if e.ended}
        inserted = self._inserted & ended.keys()
        self._inserted -= inserted
        for key in ended:
            del self._states.executions[key]
        return replace(changes, states=States(executions=ended), inserted=inserted)

    def take_all(self) -> Changes:
        """Return all buffered changes, and empty the buffer."""
        states, self._states = self._states, States()
        inserted, self._inserted = self._inserted, set()
        return Changes(
            states=states, inserted=inserted, subscriptions={}, bulk_updates=[], unrecognized=[]
        )

    def _is_full(self) -> bool:
        return any(len(getattr(self._states, n)) > MAX_STATES for n in States.__struct_fields__)
