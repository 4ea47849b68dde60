"""States that are written later, while a generation is built that nobody reads yet.

Every run changes its actor's totals and its worker. Written with each batch, these rows are written
again and again; put off, they are written once, or whenever there are many.
"""

from msgspec.structs import replace

from abaco_projector.rows import Changes
from abaco_proto.fold import States

MOST_STATES = 15_000
"""Fewer than a store remembers, so that what is put off is never looked for in the rows."""


def put_off(deferred: States, changes: Changes) -> tuple[States, Changes]:
    """What is put off after one more batch, and what of it is to be written now."""
    later = States(
        actors=deferred.actors | changes.states.actors,
        totals=deferred.totals | changes.states.totals,
        workers=deferred.workers | changes.states.workers,
    )
    now = States(executions=changes.states.executions)
    many = max(len(later.actors), len(later.totals), len(later.workers)) > MOST_STATES
    if many or changes.sweeps:  # a sweep is a statement over rows
        later, now = States(), replace(later, executions=now.executions)
    return later, replace(changes, states=now)


def due(deferred: States) -> Changes:
    """What was put off, to be written."""
    return Changes(states=deferred, subscriptions={}, sweeps=[], unrecognized=[])
