"""The condition under which an event is appended."""

import msgspec


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """A condition of an append: the last event that ``filter`` selects has this sequence.

    Zero says that there is none yet. It holds against all that is in the log, and against what is
    under way with the same filter; a cluster does not see what is under way with another one. So
    whoever appends what a filter selects does it under that filter, or the condition only saves
    work (docs/adr/0040).
    """

    filter: str
    sequence: int
