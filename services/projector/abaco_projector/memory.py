"""What a store remembers of its rows, so that it need not load what it has just written.

Theory: one process at a time writes a generation (it holds the checkpoint), and it writes through:
what is remembered is what the rows hold. What has ended is forgotten at once, because its history
is over but for rare events; what a sweep ended behind our back is forgotten as a whole.
"""

from collections.abc import Iterable
from itertools import islice
from typing import TypeVar

from abaco_projector.rows import Changes
from abaco_proto.fold import States
from abaco_proto.keys import ExecutionKey, Keys

MOST_ACTORS = 20_000
MOST_OTHERS = 100_000

K = TypeVar("K")
V = TypeVar("V")


class Memory:
    """States by key, those used longest ago given up first."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._states = States()

    def missing(self, keys: Keys) -> Keys:
        """What of these must be loaded. What executions run where always is."""
        known = self._states
        return Keys(
            actors={key for key in keys.actors if key not in known.actors},
            executions={key for key in keys.executions if key not in known.executions},
            workers={key for key in keys.workers if key not in known.workers},
            runs=keys.runs,
        )

    def known(self, keys: Keys) -> States:
        """What is remembered of these."""
        known = self._states
        return States(
            actors=_those(known.actors, keys.actors),
            totals=_those(known.totals, keys.actors),
            executions=_those(known.executions, keys.executions),
            workers=_those(known.workers, keys.workers),
        )

    def take(self, loaded: States, changes: Changes) -> None:
        """Remember what a batch loaded, and what it was changed to."""
        states = self._states
        for name in ("actors", "totals", "executions", "workers"):
            fresh = getattr(loaded, name) | getattr(changes.states, name)
            _put(getattr(states, name), fresh)
        _drop(states.executions, [k for k in changes.states.executions if _over(states, k)])
        _drop(states.workers, [k for k, w in changes.states.workers.items() if not w.live])
        for sweep in changes.sweeps:
            _drop(states.actors, [sweep.key])
            _drop(states.totals, [sweep.key])
            _drop(states.executions, [k for k in states.executions if k[:2] == sweep.key])
        self._shrink()

    def forget(self) -> None:
        """Know nothing any more."""
        self._states = States()

    def _shrink(self) -> None:
        states = self._states
        for key in _oldest(states.actors, MOST_ACTORS):
            del states.actors[key], states.totals[key]
        _drop(states.executions, _oldest(states.executions, MOST_OTHERS))
        _drop(states.workers, _oldest(states.workers, MOST_OTHERS))


def merged(one: States, other: States) -> States:
    """All states of both; they are equal where they are of the same key."""
    return States(
        **{name: getattr(one, name) | getattr(other, name) for name in States.__struct_fields__}
    )


def _over(states: States, key: ExecutionKey) -> bool:
    return states.executions[key].ended


def _those(known: dict[K, V], keys: Iterable[K]) -> dict[K, V]:
    return {key: known[key] for key in keys if key in known}


def _put(known: dict[K, V], fresh: dict[K, V]) -> None:
    """Put these at the end, where what was used last is."""
    for key, value in fresh.items():
        known.pop(key, None)
        known[key] = value


def _drop(known: dict[K, V], keys: Iterable[K]) -> None:
    for key in keys:
        known.pop(key, None)


def _oldest(known: dict[K, V], most: int) -> list[K]:
    """The keys beyond ``most``, from those used longest ago."""
    return list(islice(known, max(len(known) - most, 0)))
