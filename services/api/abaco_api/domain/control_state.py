"""Orders: which executions of an actor were halted, given up, or sent again, folded from the log.

Such events are few, so this can be read for the occasion, where all that happened to an actor's
executions could not. What it cannot know is how an execution ended by itself.
"""

import msgspec
from msgspec.structs import replace

from abaco_proto import events as ev
from abaco_proto.envelope import Recorded


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one execution. Sequences are 0 for what did not happen.

    ``halted_at`` is the halt that holds, ``abandoned_at`` where it was given up after
    ``attempts``; a retry takes both back.
    """

    halted_at: int = 0
    abandoned_at: int = 0
    attempts: int = 0

    @property
    def abandoned(self) -> bool:
        """Whether it was given up and nothing else has happened since; a halt is for good."""
        return self.abandoned_at > 0 and not 0 < self.halted_at < self.abandoned_at


INITIAL = Order()

KINDS: tuple[type[ev.Event], ...] = (
    ev.ExecutionHaltRequested,
    ev.ExecutionAbandoned,
    ev.ExecutionRetryRequested,
)
"""The events it is folded from."""


def evolve(order: Order, recorded: Recorded) -> Order:
    """The order after one more event about its execution."""
    match recorded.event:
        case ev.ExecutionHaltRequested() if not order.halted_at:
            return replace(order, halted_at=recorded.sequence)
        case ev.ExecutionAbandoned() as event:
            return replace(order, abandoned_at=recorded.sequence, attempts=event.attempts)
        case ev.ExecutionRetryRequested() if order.abandoned:
            return INITIAL
    return order
