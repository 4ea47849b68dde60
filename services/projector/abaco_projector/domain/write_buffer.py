"""Changes that are written later, while a generation is built that nobody reads yet.

Every run changes its actor's totals and its worker, and goes through several states of its own.
Written with each batch, these rows are written again and again; put off, a row is written once: an
execution when it has ended, the rest at the end, or whenever it is many.
"""

from msgspec.structs import replace

from abaco_projector.domain.batch_fold import Changes
from abaco_proto.fold import States
from abaco_proto.keys import ExecutionKey

MOST_STATES = 15_000
"""Fewer than a store remembers, so that what is put off is never looked for in the rows."""


class Deferral:
    """What is put off."""

    def __init__(self) -> None:
        """Nothing."""
        self._states = States()
        self._born: set[ExecutionKey] = set()

    def put_off(self, changes: Changes) -> Changes:
        """Take in what a batch changed; what of it, and of what was put off, is to be written now.

        A sweep is a statement over rows, so these must be there before it.
        """
        for name in States.__struct_fields__:
            getattr(self._states, name).update(getattr(changes.states, name))
        self._born |= changes.born
        if changes.sweeps or self._many():
            due = self.due()
            return replace(changes, states=due.states, born=due.born)
        ended = {key: one for key, one in changes.states.executions.items() if one.ended}
        born = self._born & ended.keys()
        self._born -= born
        for key in ended:
            del self._states.executions[key]
        return replace(changes, states=States(executions=ended), born=born)

    def due(self) -> Changes:
        """All that was put off, to be written; nothing is put off any more."""
        states, self._states = self._states, States()
        born, self._born = self._born, set()
        return Changes(states=states, born=born, subscriptions={}, sweeps=[], unrecognized=[])

    def _many(self) -> bool:
        return any(len(getattr(self._states, n)) > MOST_STATES for n in States.__struct_fields__)
