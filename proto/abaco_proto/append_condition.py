"""The condition under which an event is appended."""

import msgspec


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """A condition of an append: the last event that matches ``filter`` has this sequence.

    Zero means that there is no such event. The condition is checked against the stored events, and
    in a cluster against appends in flight only if they have the same filter. So every append of an
    event that matches a filter must be conditional on that filter (docs/adr/0040).
    """

    filter: str
    sequence: int
