"""Control state: whether an execution was halted, abandoned or retried, folded from the log.

Events of these types are few, so a command can read them when it needs them. How an execution ended
by itself is not part of this state.
"""

import msgspec
from msgspec.structs import replace

from abaco_proto import events as ev
from abaco_proto.envelope import Recorded


class ExecutionControlState(msgspec.Struct, frozen=True, kw_only=True):
    """Halt, abandonment and retry of one execution. A sequence is 0 if there was no such event.

    ``halted_at`` is the first halt, ``abandoned_at`` the abandonment after ``attempts``; a retry
    resets both.
    """

    halted_at: int = 0
    abandoned_at: int = 0
    attempts: int = 0

    @property
    def abandoned(self) -> bool:
        """Whether it was abandoned and not retried. An execution that was halted first is not."""
        return self.abandoned_at > 0 and not 0 < self.halted_at < self.abandoned_at


INITIAL = ExecutionControlState()

KINDS: tuple[type[ev.Event], ...] = (
    ev.ExecutionHaltRequested,
    ev.ExecutionAbandoned,
    ev.ExecutionRetryRequested,
)
"""The types of the events that it is folded from."""


def evolve(state: ExecutionControlState, recorded: Recorded) -> ExecutionControlState:
    """The state after one more event of its execution."""
    match recorded.event:
        case ev.ExecutionHaltRequested() if not state.halted_at:
            return replace(state, halted_at=recorded.sequence)
        case ev.ExecutionAbandoned() as event:
            return replace(state, abandoned_at=recorded.sequence, attempts=event.attempts)
        case ev.ExecutionRetryRequested() if state.abandoned:
            return INITIAL
    return state
